"""Loads the reference's golden vectors (tests/golden/README.md) into our networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from learner.agents.brc import BRCState, initial_state
from learner.agents.interface import Batch
from learner.agents.optimizers import AdamW
from learner.config import LearnerConfig
from learner.learner import Learner
from learner.networks.modules import Critic, Policy
from learner.networks.spec import NetworkSpec

FOLDER = Path(__file__).parents[1] / "golden"
SETTINGS = LearnerConfig()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    with np.load(FOLDER / f"{name}.npz") as archive:
        arrays = {key: torch.from_numpy(np.array(archive[key])) for key in archive.files}
    return {
        key: value.to(DEVICE, dtype) if value.is_floating_point() else value.to(DEVICE) for key, value in arrays.items()
    }


def spec(num_tasks: int, num_bins: int = 101) -> NetworkSpec:
    return NetworkSpec(
        observation_size=7, action_size=4, num_tasks=num_tasks, width=32, policy_width=32, num_bins=num_bins
    )


def put(module: nn.Module, name: str, value: Tensor) -> None:
    module.get_parameter(name).data.copy_(value)


def set_dense(module: nn.Module, name: str, weight: Tensor, bias: Tensor) -> None:
    put(module, f"{name}.weight", weight.T)
    put(module, f"{name}.bias", bias)


def set_norm(module: nn.Module, name: str, scale: Tensor, offset: Tensor) -> None:
    put(module, f"{name}.weight", scale)
    put(module, f"{name}.bias", offset)


def set_bronet(module: nn.Module, name: str, arrays: dict[str, Tensor], prefix: str, head: int | None) -> None:
    def at(key: str) -> Tensor:
        value = arrays[prefix + key]
        return value if head is None else value[head]

    set_dense(module, f"{name}.input", at("in.w"), at("in.b"))
    set_norm(module, f"{name}.input_norm", at("in_ln.g"), at("in_ln.o"))
    depth = sum(key.startswith(prefix) and key.endswith("a.w") for key in arrays)
    for index in range(depth):
        block = f"{name}.blocks.{index}"
        set_dense(module, f"{block}.first", at(f"{index}a.w"), at(f"{index}a.b"))
        set_norm(module, f"{block}.first_norm", at(f"{index}a_ln.g"), at(f"{index}a_ln.o"))
        set_dense(module, f"{block}.second", at(f"{index}b.w"), at(f"{index}b.b"))
        set_norm(module, f"{block}.second_norm", at(f"{index}b_ln.g"), at(f"{index}b_ln.o"))
    if prefix + "out.w" in arrays:
        set_dense(module, f"{name}.output", at("out.w"), at("out.b"))


def set_critic(critic: Critic, arrays: dict[str, Tensor], prefix: str) -> None:
    for head in range(2):
        set_bronet(critic, f"heads.{head}", arrays, prefix, head)
    if critic.task_embeddings is not None:
        critic.task_embeddings.data.copy_(arrays[prefix + "emb"])


def set_policy(policy: Policy, arrays: dict[str, Tensor], prefix: str) -> None:
    set_bronet(policy, "trunk", arrays, prefix, None)
    set_dense(policy, "mean", arrays[prefix + "mu.w"], arrays[prefix + "mu.b"])
    set_dense(policy, "log_std", arrays[prefix + "ls.w"], arrays[prefix + "ls.b"])


def state(
    arrays: dict[str, Tensor], num_tasks: int, dtype: torch.dtype, prefix: str = "", num_bins: int = 101
) -> BRCState:
    """Return a state with the parameters under `prefix` and optimisers that have taken no step."""
    made = initial_state(spec(num_tasks, num_bins), SETTINGS, dtype, DEVICE)
    set_critic(made.critic, arrays, prefix + "critic/")
    set_critic(made.target, arrays, prefix + "target/")
    set_policy(made.policy, arrays, prefix + "actor/")
    made.log_temperature.data.copy_(arrays[prefix + "log_temp"])
    return made


def batch(arrays: dict[str, Tensor], prefix: str) -> Batch:
    tasks = arrays.get(prefix + "task_ids", torch.zeros(16, dtype=torch.int64, device=DEVICE))
    return Batch(
        arrays[prefix + "observations"],
        arrays[prefix + "actions"],
        arrays[prefix + "rewards"],
        arrays[prefix + "masks"],
        arrays[prefix + "next_observations"],
        tasks.long(),
    )


def gradient(optimizer: AdamW, parameter: nn.Parameter) -> Tensor | None:
    """Return the gradient of a parameter, a part of that of its leaf; None if there is none."""
    for leaf in optimizer.flat.leaves:
        place = parameter.storage_offset() - leaf.storage_offset()
        if leaf is parameter:
            return leaf.grad
        if leaf.grad is not None and not isinstance(leaf, nn.Parameter) and 0 <= place < leaf.numel():
            return leaf.grad.as_strided(parameter.shape, parameter.stride(), leaf.grad.storage_offset() + place)
    return None


def continuous(learner: Learner) -> BRCState:
    """Return the state of a learner with continuous actions."""
    assert isinstance(learner.state, BRCState)
    return learner.state


def critics(learner: Learner) -> dict[str, Critic]:
    """Return critic and target by their names in checkpoints."""
    state = continuous(learner)
    return {"critic": state.critic, "target": state.target}
