"""An agent for other tasks that begins with what one has learned: networks are kept and grown, the rest begins anew.

Kept are the critic and its target, the policy, the temperature, and of tasks that go on their embeddings and reward
scales. Optimisers, counters and replay are new.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.tensor import DTensor, distribute_tensor

from learner.agents.brc import BRCState
from learner.agents.discrete import DiscreteCritic
from learner.learner import Learner
from learner.networks.footprint import NetworkSpec
from learner.networks.modules import Critic, Policy, normalized
from learner.state.dcp import plain_errors

MEAN, RANDOM = -1, -2


@dataclass(frozen=True)
class Origin:
    """What an agent comes from.

    Attributes:
        url: of the learner's part of a checkpoint.
        networks: of the agent in it.
        embeddings: for every task of the new agent, whose embedding there it begins with: the index of a task, MEAN of
            all of them, or RANDOM for one of its own.
        scales: for every task of the new agent, whose reward scale it goes on with, or RANDOM to begin anew.
    """

    url: str
    networks: NetworkSpec
    embeddings: tuple[int, ...]
    scales: tuple[int, ...]


@torch.no_grad()
def begin_from(learner: Learner, origin: Origin) -> None:
    """Give a fresh learner what its origin has learned. Every rank must call it.

    Inputs and actions that the origin did not have get weights of zero in what is added to the first layers, so that
    nothing it has learned changes; actions that it did not have keep the policy's fresh ones.
    """
    old = origin.networks
    with torch.device("meta"):  # shapes alone: orthogonal matrices of this size would take long to make
        modules: dict[str, nn.Module] = (
            {"critic": DiscreteCritic(old), "target": DiscreteCritic(old)}
            if old.discrete
            else {"critic": Critic(old), "target": Critic(old), "policy": Policy(old)}
        )
    saved = {
        name: {key: torch.empty(tensor.shape) for key, tensor in module.state_dict().items()}
        for name, module in modules.items()
    }
    others = {"normalizer": {"minimum": torch.zeros(old.num_tasks), "maximum": torch.zeros(old.num_tasks)}}
    if not old.discrete:
        others["temperature"] = {"log": torch.zeros(())}
    with plain_errors(f"{origin.url} cannot be read"):
        dcp_load(saved | others, checkpoint_id=origin.url, no_dist=True)
    new, state = learner.spec.networks, learner.state
    ours = state.modules()
    for name, module in ours.items():
        for key, parameter in module.named_parameters():
            if key == "task_embeddings":
                continue
            acts = name != "policy" and not old.discrete
            put(parameter, grow(key, saved[name][key], fresh(parameter), old, new, acts))
    if old.embedding_inputs and not new.embedding_inputs and origin.embeddings[0] != RANDOM:
        fold_embedding(saved, ours, origin)
    if state.critic.task_embeddings is not None:
        for name in ("critic", "target"):
            table = ours[name].get_parameter("task_embeddings")
            put(table, embeddings(origin, saved[name].get("task_embeddings"), table))
        for index, kind in enumerate(origin.embeddings):
            if kind == RANDOM:
                assert state.target.task_embeddings is not None
                state.target.task_embeddings[index] = state.critic.task_embeddings[index]
    if isinstance(state, BRCState):
        state.log_temperature.copy_(others["temperature"]["log"])
    for index, task in enumerate(origin.scales):
        if task >= 0:
            learner.normalizer.minimum[index] = others["normalizer"]["minimum"][task]
            learner.normalizer.maximum[index] = others["normalizer"]["maximum"][task]


def fold_embedding(saved: dict[str, dict[str, Tensor]], ours: dict[str, nn.Module], origin: Origin) -> None:
    """A single task has no embedding: what the one it begins with contributed to first layers becomes their bias."""
    for name, module in ours.items():
        table = saved["target" if name == "target" else "critic"]["task_embeddings"]
        kind = origin.embeddings[0]
        row = normalized(table.mean(dim=0) if kind == MEAN else table[kind], origin.networks.embedding_norm)
        for key, parameter in module.named_parameters():
            if key.endswith("input.bias"):
                weight = saved[name][key.replace("bias", "weight")][:, -origin.networks.embedding_inputs :]
                put(parameter, saved[name][key] + weight @ row)


def grow(key: str, saved: Tensor, begun: Tensor, old: NetworkSpec, new: NetworkSpec, acts: bool) -> Tensor:
    """A saved parameter in the shape of the new agent's, which has `begun` with other values.

    `acts`: whether actions are among the inputs of its network.
    """
    if key.endswith("input.weight"):
        grown = torch.zeros_like(begun)
        parts = [(old.features, new.features)] if old.discrete else [(old.observation_size, new.observation_size)]
        parts += [(old.action_size, new.action_size)] * acts
        parts.append((old.embedding_inputs, new.embedding_inputs))
        source = target = 0
        for was, becomes in parts:
            width = min(was, becomes)
            grown[:, target : target + width] = saved[:, source : source + width]
            source, target = source + was, target + becomes
        return grown
    if key.split(".")[0] in ("mean", "log_std") or ".output." in key:  # a row, or several, for every action
        grown = begun.clone()
        rows = min(len(saved), len(begun))
        grown[:rows] = saved[:rows]
        return grown
    return saved


def embeddings(origin: Origin, saved: Tensor | None, begun: Tensor) -> Tensor:
    """The table of the new agent. Of an agent that knew a single task there is none to begin with."""
    table = begun.clone()
    for index, kind in enumerate(origin.embeddings):
        if saved is not None and kind != RANDOM:
            table[index] = saved.mean(dim=0) if kind == MEAN else saved[kind]
    return table


def fresh(parameter: Tensor) -> Tensor:
    """The shape of a parameter that may be sharded, with the values of one that is not: only these are looked at."""
    if isinstance(parameter, DTensor):
        return torch.empty(parameter.shape, dtype=parameter.dtype)
    return parameter.detach().cpu()


def put(parameter: Tensor, value: Tensor) -> None:
    value = value.to(parameter.device, parameter.dtype)
    if isinstance(parameter, DTensor):
        parameter.copy_(distribute_tensor(value, parameter.device_mesh, parameter.placements))
    else:
        parameter.copy_(value)
