"""Loads the reference's golden vectors (tests/golden/README.md) into our networks."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from learner.agents.brc import Batch, BRCSettings, BRCState, initial_state
from learner.learner import Learner
from learner.networks.footprint import NetworkSpec
from learner.networks.modules import BroNet, Critic, Policy, ResidualBlock

FOLDER = Path(__file__).parent / "golden"
SETTINGS = BRCSettings()


def load(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    with np.load(FOLDER / f"{name}.npz") as archive:
        arrays = {key: torch.from_numpy(np.array(archive[key])) for key in archive.files}
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in arrays.items()}


def spec(num_tasks: int) -> NetworkSpec:
    return NetworkSpec(observation_size=7, action_size=4, num_tasks=num_tasks, width=32, policy_width=32)


def set_dense(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.data.copy_(weight.T)
    layer.bias.data.copy_(bias)


def set_norm(layer: nn.LayerNorm, scale: Tensor, offset: Tensor) -> None:
    layer.weight.data.copy_(scale)
    layer.bias.data.copy_(offset)


def set_bronet(net: BroNet, arrays: dict[str, Tensor], prefix: str, head: int | None) -> None:
    def at(key: str) -> Tensor:
        value = arrays[prefix + key]
        return value if head is None else value[head]

    set_dense(net.input, at("in.w"), at("in.b"))
    set_norm(net.input_norm, at("in_ln.g"), at("in_ln.o"))
    for index, block in enumerate(cast(list[ResidualBlock], list(net.blocks))):
        set_dense(block.first, at(f"{index}a.w"), at(f"{index}a.b"))
        set_norm(block.first_norm, at(f"{index}a_ln.g"), at(f"{index}a_ln.o"))
        set_dense(block.second, at(f"{index}b.w"), at(f"{index}b.b"))
        set_norm(block.second_norm, at(f"{index}b_ln.g"), at(f"{index}b_ln.o"))
    if net.output is not None:
        set_dense(net.output, at("out.w"), at("out.b"))


def set_critic(critic: Critic, arrays: dict[str, Tensor], prefix: str) -> None:
    for head, net in enumerate(cast(list[BroNet], list(critic.heads))):
        set_bronet(net, arrays, prefix, head)
    if critic.task_embeddings is not None:
        critic.task_embeddings.data.copy_(arrays[prefix + "emb"])


def set_policy(policy: Policy, arrays: dict[str, Tensor], prefix: str) -> None:
    set_bronet(policy.trunk, arrays, prefix, None)
    set_dense(policy.mean, arrays[prefix + "mu.w"], arrays[prefix + "mu.b"])
    set_dense(policy.log_std, arrays[prefix + "ls.w"], arrays[prefix + "ls.b"])


def state(arrays: dict[str, Tensor], num_tasks: int, dtype: torch.dtype, prefix: str = "") -> BRCState:
    """A state with the parameters under `prefix` and optimisers that have taken no step."""
    made = initial_state(spec(num_tasks), SETTINGS, dtype)
    set_critic(made.critic, arrays, prefix + "critic/")
    set_critic(made.target, arrays, prefix + "target/")
    set_policy(made.policy, arrays, prefix + "actor/")
    made.log_temperature.data.copy_(arrays[prefix + "log_temp"])
    return made


def batch(arrays: dict[str, Tensor], prefix: str) -> Batch:
    return Batch(
        arrays[prefix + "observations"],
        arrays[prefix + "actions"],
        arrays[prefix + "rewards"],
        arrays[prefix + "masks"],
        arrays[prefix + "next_observations"],
        arrays[prefix + "task_ids"].long() if prefix + "task_ids" in arrays else torch.zeros(16, dtype=torch.int64),
    )


def continuous(learner: Learner) -> BRCState:
    """The state of one whose actions are continuous."""
    assert isinstance(learner.state, BRCState)
    return learner.state


def critics(learner: Learner) -> dict[str, Critic]:
    """By their names in checkpoints."""
    state = continuous(learner)
    return {"critic": state.critic, "target": state.target}
