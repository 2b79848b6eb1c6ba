"""Loads golden vectors of other critics (tests/golden/critics/README.md) into our networks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from learner.agents.brc import BRCState, initial_state
from learner.config import LearnerConfig
from learner.networks.layers import Linear
from learner.networks.spec import network_spec

FOLDER = Path(__file__).parents[1] / "golden" / "critics"
OBSERVATION, ACTION = 7, 4
Arrays = dict[str, Tensor]

# Of each architecture, our names of layers and the reference's names; `\1` is the number of a block.
NAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "bronet": (
        (r"blocks\.(\d)\.first_norm", r"\1a_ln"),
        (r"blocks\.(\d)\.second_norm", r"\1b_ln"),
        (r"blocks\.(\d)\.first", r"\1a"),
        (r"blocks\.(\d)\.second", r"\1b"),
        (r"input_norm", "in_ln"),
    ),
    "mlp": ((r"hidden\.0", "in"), (r"hidden\.1", "h")),
    "simba": (
        (r"blocks\.(\d)\.norm", r"\1_ln"),
        (r"blocks\.(\d)\.wide", r"\1a"),
        (r"blocks\.(\d)\.narrow", r"\1b"),
        (r"last_norm", "post_ln"),
    ),
    "simbav2": (
        (r"input_scale\.weight", "in.s"),
        (r"blocks\.(\d)\.wide", r"\1a"),
        (r"blocks\.(\d)\.narrow", r"\1b"),
        (r"blocks\.(\d)\.scale\.weight", r"\1.s"),
        (r"blocks\.(\d)\.interpolation\.weight", r"\1.alpha"),
        (r"(output|mean|log_std)_hidden", r"\1 1"),
        (r"(output|mean|log_std)_scale\.weight", r"\1.s"),
        (r"(output|mean|log_std)\.weight", r"\1 2.w"),
    ),
    "xqc": ((r"input_norm", "in_bn"), (r"norms\.(\d)", r"\1_bn"), (r"hidden\.(\d)", r"\1")),
    "flash": (
        (r"input_norm", "in_bn"),
        (r"blocks\.(\d)\.wide_norm", r"\1a_bn"),
        (r"blocks\.(\d)\.narrow_norm", r"\1b_bn"),
        (r"blocks\.(\d)\.wide", r"\1a"),
        (r"blocks\.(\d)\.narrow", r"\1b"),
        (r"last_norm", "post"),
    ),
}
COMMON = ((r"input", "in"), (r"output", "out"), (r"mean", "mu"), (r"log_std", "ls"))


def load(name: str, dtype: torch.dtype = torch.float64) -> Arrays:
    with np.load(FOLDER / f"{name}.npz") as archive:
        arrays = {key: torch.from_numpy(np.array(archive[key])) for key in archive.files}
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in arrays.items()}


def reference_name(key: str, network: str) -> tuple[str, int | None]:
    """Return the reference's name of a parameter or buffer of ours, and the head that it is of, if it is of one."""
    head, (layer, part) = None, key.removeprefix("trunk.").rsplit(".", 1)
    if found := re.fullmatch(r"heads\.(\d)\.(.*)", layer):
        head, layer = int(found[1]), found[2]
    whole = f"{layer}.{part}"
    for ours, theirs in NAMES[network]:
        if re.fullmatch(ours, whole):
            name = re.sub(ours, theirs, whole)
            break
        if re.fullmatch(ours, layer):
            name = f"{re.sub(ours, theirs, layer)}.{part}"
            break
    else:
        name = whole
    for ours, theirs in COMMON:
        name = re.sub(rf"^{ours}(?=[. ])", theirs, name)
    return name.replace(" ", ""), head


def value_of(module: nn.Module, key: str, arrays: Arrays, prefix: str, network: str) -> Tensor:
    """Return the reference's value of a parameter or buffer of ours, in our shape."""
    name, head = reference_name(key, network)
    layer, _, part = name.rpartition(".")
    dense = isinstance(module.get_submodule(key.rpartition(".")[0]), Linear)
    normed = {"weight": "w" if dense else "g", "bias": "b" if dense else "o", "mean": "m", "variance": "v"}
    found = arrays[f"{prefix}{layer}.{normed.get(part, part)}"]
    ours = module.get_submodule(key.rpartition(".")[0]).state_dict()[key.rpartition(".")[2]]
    found = found[head] if head is not None and found.dim() > ours.dim() else found
    return found.T if dense and key.endswith("weight") else found


def set_module(module: nn.Module, arrays: Arrays, prefix: str, network: str, buffers: bool = True) -> None:
    """Give all parameters, and the running statistics, the values under a prefix."""
    named = [*module.named_parameters(), *(module.named_buffers() if buffers else ())]
    for key, tensor in named:
        tensor.data.copy_(value_of(module, key, arrays, prefix, network))


def state(arrays: Arrays, prefix: str, config: LearnerConfig) -> BRCState:
    """Return a state with the values under a prefix, in float64, and optimisers that have taken no step."""
    spec = network_spec(config, observation_size=OBSERVATION, action_size=ACTION, num_tasks=1)
    made = initial_state(spec, config, torch.float64)
    set_module(made.critic, arrays, f"{prefix}critic/", config.network)
    set_module(made.target, arrays, f"{prefix}target/", config.network, buffers=False)
    set_module(made.policy, arrays, f"{prefix}actor/", config.network)
    made.log_temperature.data.copy_(arrays[f"{prefix}log_temp"])
    for optimizer in made.optimizers().values():
        optimizer.refresh()
    return made


SMALL = replace(LearnerConfig(), width=32, policy_width=32, temperature_beta=0.9, target_entropy_per_action=-0.5)
# The settings of each golden run of updates.
SETTINGS: dict[str, LearnerConfig] = {
    "sac_mlp_update_f64": replace(
        SMALL,
        network="mlp",
        policy_depth=2,
        loss="mse",
        target="min",
        order="policy-first",
        weight_decay=0.0,
        target_entropy_per_action=-1.0,
    ),
    "simba_update_f64": replace(
        SMALL, network="simba", heads=1, loss="mse", order="policy-first", learning_rate=1e-4, weight_decay=1e-2
    ),
    "simbav2_update_single_f64": replace(
        SMALL,
        network="simbav2",
        heads=1,
        value_limit=5.0,
        order="policy-first",
        learning_rate=1e-4,
        weight_decay=0.0,
        schedule="linear",
        final_rate=0.5,
        schedule_updates=10,
    ),
    "xqc_update_f64": replace(
        SMALL,
        network="xqc",
        depth=4,
        policy_depth=4,
        value_limit=5.0,
        target="min",
        weight_decay=0.0,
        policy_interval=3,
        schedule="linear",
        final_rate=0.1,
        schedule_updates=10,
    ),
    "flashsac_update_f64": replace(
        SMALL,
        network="flash",
        width=16,
        policy_width=16,
        policy_depth=2,
        value_limit=5.0,
        target="min",
        heads_loss="mean",
        order="policy-first",
        weight_decay=0.0,
        polyak=0.01,
        policy_interval=2,
        schedule="cosine",
        final_rate=0.5,
        schedule_updates=10,
        target_entropy_per_action=0.5 * float(np.log(2 * np.pi * np.e * 0.15**2)),
    ),
}
