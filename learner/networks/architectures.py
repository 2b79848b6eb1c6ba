"""Architectures, from which critics and policies are made: BroNet, a plain MLP, SimBa, SimbaV2, XQC and FlashSAC.

`--learner.network` names an architecture in ARCHITECTURES. docs/comparisons.md says what each is good for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from learner.networks.description import (
    BatchNorm,
    Bounded,
    Clipped,
    Constant,
    Dense,
    Interpolation,
    LayerNorm,
    Layers,
    ReLU,
    Residual,
    RMSNorm,
    Scaler,
    UnitNorm,
)

BOUNDED, CLIPPED = Bounded(-10.0, 2.0), Clipped(-10.0, 2.0)


def dense(name: str, width: int, outputs: int, tasks: int = 1) -> Layers:
    """Return an output layer, with `outputs` outputs for each of `tasks` tasks."""
    return (Dense(name, tasks * outputs, blocks=tasks),)


def unit_gain(name: str, width: int, outputs: int, tasks: int = 1) -> Layers:
    """Return an output layer whose weights begin orthogonal, with rows of norm 1."""
    return (Dense(name, tasks * outputs, gain=1.0, blocks=tasks),)


@dataclass(frozen=True)
class Architecture:
    """An architecture. Layers of a network are those of `first`, of the trunk, and of its outputs.

    Attributes:
        trunk: (width, depth) -> hidden layers, whose output has this width.
        output: (name, width, outputs, tasks) -> layers that make `tasks` x `outputs` outputs of the trunk's; the last
            Dense has the name. For heads of critics, and for the policy's mean.
        log_std: the same for the policy's log standard deviation, which `bound` then bounds.
        first: layers that normalise observations and actions, before the task's embedding is appended.
        batch: whether it normalises over the rows of a batch: then critics see transitions' states and next states in
            one batch, and the policy acts with running statistics.
        joint_policy: with `batch`, whether the policy's loss is computed among both kinds of states too. Its statistics
            then move only when the policy does; without, in every update.
    """

    trunk: Callable[[int, int], Layers]
    output: Callable[[str, int, int, int], Layers] = dense
    log_std: Callable[[str, int, int, int], Layers] = unit_gain
    bound: Bounded | Clipped = BOUNDED
    first: Layers = ()
    batch: bool = False
    joint_policy: bool = False


def bronet(width: int, depth: int) -> Layers:
    """Return Dense, LayerNorm, ReLU, then `depth` residuals x + LN(Dense(ReLU(LN(Dense(x))))) (arXiv 2505.23150, figure
    2). There is no activation and no LayerNorm after the last sum."""
    block: Layers = (
        Dense("first", width),
        LayerNorm("first_norm"),
        ReLU(),
        Dense("second", width),
        LayerNorm("second_norm"),
    )
    blocks = tuple(Residual(f"blocks.{index}", block) for index in range(depth))
    return (Dense("input", width), LayerNorm("input_norm"), ReLU(), *blocks)


def mlp(width: int, depth: int) -> Layers:
    """Return `depth` layers of Dense and ReLU, without any norm, as in SAC (arXiv 1812.05905)."""
    return tuple(layer for index in range(depth) for layer in (Dense(f"hidden.{index}", width), ReLU()))


def simba(width: int, depth: int) -> Layers:
    """Return Dense, then `depth` residuals x + Dense(ReLU(Dense(LN(x)))), four times as wide inside, and a LayerNorm
    (SimBa, arXiv 2410.09754)."""
    block: Layers = (
        LayerNorm("norm"),
        Dense("wide", 4 * width, start="he_normal"),
        ReLU(),
        Dense("narrow", width, start="he_normal"),
    )
    blocks = tuple(Residual(f"blocks.{index}", block) for index in range(depth))
    return (Dense("input", width, gain=1.0), *blocks, LayerNorm("last_norm"))


def unit(name: str, outputs: int, bias: bool = False, tasks: int = 1) -> Dense:
    """Return a Dense whose outputs have incoming weights of norm 1."""
    return Dense(name, tasks * outputs, gain=1.0, bias=bias, projected=True, blocks=tasks)


def simbav2(width: int, depth: int) -> Layers:
    """Return the hyperspherical network of SimbaV2 (arXiv 2502.15280): features and incoming weights have norm 1, and
    blocks interpolate between their input and a new direction."""
    scale = math.sqrt(2.0 / width)
    block: Layers = (
        unit("wide", 4 * width),
        Scaler("scale", scale / 2.0, scale / 2.0),
        ReLU(shift=1e-8),
        unit("narrow", width),
        UnitNorm(),
    )
    blocks = tuple(
        layer
        for index in range(depth)
        for layer in (
            Interpolation(f"blocks.{index}", block, initial=1.0 / (depth + 1), scale=1.0 / math.sqrt(width)),
            UnitNorm(),
        )
    )
    embed: Layers = (Constant(3.0), UnitNorm(), unit("input", width), Scaler("input_scale", scale, scale), UnitNorm())
    return (*embed, *blocks)


def scaled_outputs(name: str, width: int, outputs: int, tasks: int = 1) -> Layers:
    """Return SimbaV2's output: two layers with a scale between them and no other nonlinearity."""
    hidden = f"{name}_hidden"
    return (unit(hidden, width), Scaler(f"{name}_scale", 1.0, 1.0), unit(name, outputs, bias=True, tasks=tasks))


def xqc(width: int, depth: int) -> Layers:
    """Return `depth` layers of Dense, with incoming weights of norm 1, BatchNorm and ReLU (XQC, arXiv 2509.25174)."""
    return tuple(
        layer
        for index in range(depth)
        for layer in (unit(f"hidden.{index}", width), BatchNorm(f"norms.{index}"), ReLU())
    )


def unit_outputs(name: str, width: int, outputs: int, tasks: int = 1) -> Layers:
    """Return an output layer whose incoming weights have norm 1."""
    return (unit(name, outputs, bias=True, tasks=tasks),)


def flash_norm(name: str) -> BatchNorm:
    return BatchNorm(name, epsilon=1e-5, unbiased=True, projected=True)


def flash(width: int, depth: int) -> Layers:
    """Return the network of FlashSAC: Dense, then `depth` residuals x + ReLU(BN(Dense(ReLU(BN(Dense(x)))))), four times
    as wide inside, and RMSNorm. Weights and norms are projected to spheres."""
    block: Layers = (
        unit("wide", 4 * width),
        flash_norm("wide_norm"),
        ReLU(),
        unit("narrow", width),
        flash_norm("narrow_norm"),
        ReLU(),
    )
    blocks = tuple(Residual(f"blocks.{index}", block) for index in range(depth))
    return (unit("input", width), *blocks, RMSNorm("last_norm", projected=True))


# The keys are the values of --learner.network.
ARCHITECTURES: dict[str, Architecture] = {
    "bronet": Architecture(bronet),
    "mlp": Architecture(mlp, unit_gain),
    "simba": Architecture(simba, unit_gain),
    "simbav2": Architecture(simbav2, scaled_outputs, scaled_outputs),
    "xqc": Architecture(
        xqc,
        unit_outputs,
        unit_outputs,
        CLIPPED,
        first=(BatchNorm("input_norm"),),
        batch=True,
    ),
    "flash": Architecture(
        flash, unit_outputs, unit_outputs, first=(flash_norm("input_norm"),), batch=True, joint_policy=True
    ),
}
