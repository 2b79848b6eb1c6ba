"""Descriptions of the agents' networks: BroNet, the critics and the policy built from it, and the image encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from learner.networks.description import (
    ACTION,
    OBSERVATION,
    TASK,
    Bounded,
    Concat,
    Convolution,
    Dense,
    Ensemble,
    Flatten,
    Group,
    Heads,
    Layer,
    LayerNorm,
    Layers,
    MaxPool,
    Network,
    ReLU,
    Residual,
    RunningNorm,
    Shape,
)
from learner.networks.spec import IMPALA_CHANNELS, NetworkSpec
from learner.registered import registered

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0


def bronet(width: int, depth: int, outputs: int = 0) -> Layers:
    """Return Dense, LayerNorm, ReLU, then `depth` residuals x + LN(Dense(ReLU(LN(Dense(x))))), then an optional output
    layer (arXiv 2505.23150, figure 2). There is no activation and no LayerNorm after the last sum."""
    block: Layers = (
        Dense("first", width),
        LayerNorm("first_norm"),
        ReLU(),
        Dense("second", width),
        LayerNorm("second_norm"),
    )
    blocks = tuple(Residual(f"blocks.{index}", block) for index in range(depth))
    output = (Dense("output", outputs),) if outputs else ()
    return (Dense("input", width), LayerNorm("input_norm"), ReLU(), *blocks, *output)


def impala(width: int) -> Layers:
    """Return three stages of 16, 32 and 32 channels, times `width`. Each stage is a convolution, pooling and two
    residuals (arXiv 1802.01561, figure 3, large network). Input rows are (frames, height, width) in [0, 1]."""
    block: Layers = (ReLU(), Convolution("first", 0), ReLU(), Convolution("second", 0))
    stages: list[Layer] = []
    for index, count in enumerate(IMPALA_CHANNELS):
        channels = width * count
        inner = tuple(Convolution(layer.name, channels) if isinstance(layer, Convolution) else layer for layer in block)
        blocks = (Residual("blocks.0", inner), Residual("blocks.1", inner))
        stages.append(Group(f"stages.{index}", (Convolution("convolution", channels), MaxPool(), *blocks)))
    return (*stages, ReLU(), Flatten())


Trunk = Callable[[int, int, int], Layers]  # (width, depth, outputs or 0) -> layers
TRUNKS: dict[str, Trunk] = {"bronet": bronet}
GROUP = "brc.networks"  # the group of entry points by which other packages register networks


@cache
def trunk(name: str) -> Trunk:
    """Return the network of this name, from which critics and policies are built. Raises ValueError, with the known
    names, if there is none."""
    return registered("network", name, TRUNKS, GROUP)


def inputs(spec: NetworkSpec, *names: str) -> tuple[tuple[str, Shape], ...]:
    """Return the names and shapes of these inputs for a network of this spec. The task is left out if there is one."""
    shapes: dict[str, Shape] = {
        OBSERVATION: spec.observation_shape,
        ACTION: (spec.action_size,),
        TASK: (spec.embedding_inputs,),
    }
    return tuple((name, shapes[name]) for name in names if shapes[name] != (0,))


def begins(spec: NetworkSpec, *names: str) -> Layers:
    """Return the first layers: the normalisation of observations, if configured, and the Concat of the named inputs."""
    norm = (RunningNorm("observation_norm"),) if spec.normalize_observations else ()
    behind = tuple(name for name, _ in inputs(spec, *names))
    return (*norm, Concat(behind)) if behind else norm


def critic(spec: NetworkSpec) -> Network:
    """Return an ensemble of BroNets over (observation, action, task embedding). Its output is (heads, rows, bins).

    Every head has parameters of its own, by name; a chain computes all heads together (learner.networks.chain).
    """
    heads = Ensemble("heads", spec.heads, trunk(spec.network)(spec.width, spec.depth, spec.num_bins))
    return Network(inputs(spec, OBSERVATION, ACTION, TASK), (*begins(spec, ACTION, TASK), heads))


def policy(spec: NetworkSpec) -> Network:
    """Return a BroNet with two linear heads: `mean` and the bounded `log_std` of the Gaussian before the tanh."""
    size = spec.action_size
    heads = Heads(
        (
            ("mean", (Dense("mean", size),)),
            ("log_std", (Dense("log_std", size, gain=1.0), Bounded(LOG_STD_MIN, LOG_STD_MAX))),
        )
    )
    layers = Group("trunk", trunk(spec.network)(spec.policy_width, spec.policy_depth, 0))
    return Network(inputs(spec, OBSERVATION, TASK), (*begins(spec, TASK), layers, heads))


def discrete_critic(spec: NetworkSpec) -> Network:
    """Return an ensemble of BroNets over (observation or image features, task embedding). Its output is (heads, rows,
    actions x bins)."""
    encoder = (Group("encoder", impala(spec.encoder_width)),) if spec.image else ()
    heads = Ensemble("heads", spec.heads, trunk(spec.network)(spec.width, spec.depth, spec.outputs))
    return Network(inputs(spec, OBSERVATION, TASK), (*encoder, *begins(spec, TASK), heads))
