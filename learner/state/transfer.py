"""Transfer of a trained agent to other tasks: its networks are kept and enlarged, and the rest is new.

Kept are the critic and its target, the policy, the temperature, and the embeddings and reward scales of tasks that both
agents have. Optimisers, counters and replay are new.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.tensor import DTensor

from learner.agents.catalogue import described
from learner.learner import Learner
from learner.networks.description import (
    ACTION,
    OBSERVATION,
    TASK,
    Concat,
    Constant,
    Dense,
    Ensemble,
    Network,
    dense_ends,
    placed,
)
from learner.networks.modules import normalized
from learner.networks.spec import NetworkSpec
from learner.scale.sharding import put
from learner.spec import MEAN, RANDOM, Origin
from learner.state.dcp import plain_errors

KEPT_STEPS = 1000.0  # steps that the moments of an origin's running returns count for


@torch.no_grad()
def begin_from(learner: Learner, origin: Origin) -> None:
    """Load the networks of the origin into a new learner. Every rank must call this.

    In the first layers, inputs and actions that the origin did not have get weights of zero, so that its outputs do not
    change, except for networks that normalise all inputs together (simbav2). In the output layers, actions that it did
    not have keep the new learner's weights.
    """
    old = origin.networks
    with torch.device("meta"):  # only shapes are needed: making orthogonal matrices of this size would take long
        modules = learner.agent.modules(old)
    saved = {
        name: {key: torch.empty(tensor.shape) for key, tensor in module.state_dict().items()}
        for name, module in modules.items()
    }
    scales = learner.normalizer.state_dict()
    others = {"normalizer": {key: each.new_zeros(old.num_tasks, *each.shape[1:]) for key, each in scales.items()}}
    others |= {name: {"log": torch.zeros(())} for name in learner.state.scalars()}
    with plain_errors(f"{origin.url} cannot be read"):
        dcp_load(saved | others, checkpoint_id=origin.url, no_dist=True)
    new, state = learner.spec.networks, learner.state
    ours = state.modules()
    networks = described(old).networks(old), described(new).networks(new)
    for name, module in ours.items():
        columns = list(zip(columns_of(old, networks[0][name]), columns_of(new, networks[1][name]), strict=True))
        for key, parameter in module.named_parameters():
            if key == "task_embeddings":
                continue
            put(parameter, grow(key, saved[name][key], fresh(parameter), columns, networks[1][name]))
        for key, statistic in module.named_buffers():
            if key in saved[name]:  # statistics of observations
                old_statistic, of_inputs = saved[name][key], columns[: 2 if "observation_norm" in key else 3]
                inner = of_first_member(key, networks[1][name]).rpartition(".")[0] not in before_dense(
                    networks[1][name]
                )
                statistic.copy_(old_statistic if inner else by_columns(old_statistic, statistic, of_inputs))
    if old.embedding_inputs and not new.embedding_inputs and origin.embeddings[0] != RANDOM:
        fold_embedding(saved, ours, origin)
    if state.table() is not None:
        for name in ("critic", "target"):
            table = ours[name].get_parameter("task_embeddings")
            put(table, embeddings(origin, saved[name].get("task_embeddings"), table))
        for index, kind in enumerate(origin.embeddings):
            if kind == RANDOM:
                tables = [ours[name].get_parameter("task_embeddings") for name in ("critic", "target")]
                tables[1][index] = tables[0][index]
    for name, scalar in state.scalars().items():
        scalar.copy_(others[name]["log"])
    for index, task in enumerate(origin.scales):
        if task >= 0:
            learner.normalizer.minimum[index] = others["normalizer"]["minimum"][task]
            learner.normalizer.maximum[index] = others["normalizer"]["maximum"][task]
            if "moments" in others["normalizer"]:  # with the weight of a few steps: those of this run replace them
                count, mean, squares, largest = others["normalizer"]["moments"][task]
                kept = count.clamp(max=KEPT_STEPS)
                own = torch.stack([kept, mean, squares * kept / count.clamp_min(1.0), largest])
                learner.normalizer.moments[index] = own
    learner.refresh()


def fold_embedding(saved: dict[str, dict[str, Tensor]], ours: dict[str, nn.Module], origin: Origin) -> None:
    """Add the contribution of the origin's embedding to the biases of first layers: a single task has no embedding."""
    networks = described(origin.networks).networks(origin.networks)
    for name, module in ours.items():
        table = saved["target" if name == "target" else "critic"]["task_embeddings"]
        kind = origin.embeddings[0]
        row = normalized(table.mean(dim=0) if kind == MEAN else table[kind], origin.networks.embedding_norm)
        first = dense_ends(networks[name].layers)
        if not any(key.endswith(f"{first[0]}.bias") for key in saved[name]):
            raise ValueError(
                f"the first layer of {name} has no bias, to which the embedding could be added: name two tasks or more"
            )
        for key, parameter in module.named_parameters():
            layer, _, part = of_first_member(key, networks[name]).rpartition(".")
            if layer in first and part == "bias":
                weight = saved[name][key.removesuffix("bias") + "weight"][:, -origin.networks.embedding_inputs :]
                put(parameter, saved[name][key] + weight @ row)


def columns_of(spec: NetworkSpec, network: Network) -> list[int]:
    """Return how many columns each input has in the weights of a network's first layers: observation, its privileged
    part, action, task and a constant, in this order; 0 for an input that it does not have."""
    privileged = spec.privileged_size if network.shape(OBSERVATION) != spec.observation_shape else 0
    behind: dict[str, int] = {}
    for place in placed(network):
        match place.layer:
            case Concat(names):
                behind |= {name: network.shape(name)[0] for name in names}
            case Constant():
                behind["constant"] = 1
            case Dense():
                found = [behind.get(name, 0) for name in (ACTION, TASK, "constant")]
                return [place.before[0] - privileged - sum(found), privileged, *found]
    raise ValueError("the network has no Dense layer")


def of_first_member(key: str, network: Network) -> str:
    """Return the name of the same parameter in the first member of the network's ensemble, if it has one."""
    for layer in network.layers:
        if isinstance(layer, Ensemble):
            key = re.sub(rf"^{re.escape(layer.name)}\.\d+\.", f"{layer.name}.0.", key)
    return key


def grow(key: str, saved: Tensor, begun: Tensor, columns: Sequence[tuple[int, int]], network: Network) -> Tensor:
    """Return a saved parameter in the shape of `begun`, the same parameter of the new agent.

    `columns`: number of columns of each input, (in the saved parameter, in the new one). `network` is the new agent's.
    Raises ValueError for a layer that is neither first nor last and whose shape depends on the tasks.
    """
    layer, _, part = of_first_member(key, network).rpartition(".")
    if layer in dense_ends(network.layers) and part == "weight":
        return by_columns(saved, torch.zeros_like(begun), columns)
    if layer in before_dense(network) and len(saved) == sum(was for was, _ in columns[:3]):
        return by_columns(saved, begun, columns[:3])  # of observation and action
    if layer in dense_ends(network.layers, last=True):  # one or more rows for every action
        grown = begun.clone()
        rows = min(len(saved), len(begun))
        grown[:rows] = saved[:rows]
        return grown
    if saved.shape != begun.shape:
        raise ValueError(
            f"{key} has the shape {tuple(saved.shape)} in the origin and {tuple(begun.shape)} here, and only first and "
            "last Dense layers can be enlarged: train on the origin's tasks, or with a network that begins with a Dense"
        )
    return saved


def before_dense(network: Network) -> set[str]:
    """Return the names of the layers before the first Dense."""
    found = set()
    for place in placed(network):
        if isinstance(place.layer, Dense):
            break
        found.add(place.path)
    return found


def by_columns(saved: Tensor, begun: Tensor, columns: Sequence[tuple[int, int]]) -> Tensor:
    """Return `begun` (..., new columns) with what was saved (..., old columns) in the columns that inputs had."""
    grown, source, target = begun.clone(), 0, 0
    for was, becomes in columns:
        width = min(was, becomes)
        grown[..., target : target + width] = saved[..., source : source + width]
        source, target = source + was, target + becomes
    return grown


def embeddings(origin: Origin, saved: Tensor | None, begun: Tensor) -> Tensor:
    """Return the embedding table of the new agent. `saved` is None if the origin had a single task."""
    table = begun.clone()
    for index, kind in enumerate(origin.embeddings):
        if saved is not None and kind != RANDOM:
            table[index] = saved.mean(dim=0) if kind == MEAN else saved[kind]
    return table


def fresh(parameter: Tensor) -> Tensor:
    """Return a CPU tensor of the parameter's full shape. It has the parameter's values unless that is sharded, where
    the values are not used."""
    if isinstance(parameter, DTensor):
        return torch.empty(parameter.shape, dtype=parameter.dtype)
    return parameter.detach().cpu()
