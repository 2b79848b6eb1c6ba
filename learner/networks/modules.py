"""The networks of the agents as torch modules. The critics also hold the task embeddings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner.networks import registry
from learner.networks.description import ACTION, OBSERVATION, TASK
from learner.networks.layers import BatchNorm, Statistics, batch_norms
from learner.networks.spec import NetworkSpec
from learner.networks.torch_network import add_layers, channels_last, planned, run


def normalized(table: Tensor, norm: str) -> Tensor:
    """Return the table with its rows scaled to an l2 or l1 norm of 1."""
    found: Tensor = table / torch.linalg.vector_norm(table, 2 if norm == "l2" else 1, dim=-1, keepdim=True)
    return found


def add_tasks(module: nn.Module, spec: NetworkSpec) -> None:
    """Add the table of task embeddings to a critic, and one-hot rows where these tell tasks apart."""
    size, learned = spec.task_size, spec.learned_embeddings
    table = nn.Parameter(torch.empty(spec.num_tasks, size)) if learned else None
    module.register_parameter("task_embeddings", table)
    one_hot = torch.empty(spec.num_tasks, size) if size and not learned else None
    module.register_buffer("one_hot", one_hot, persistent=False)


@torch.no_grad()
def reset_tasks(module: nn.Module) -> None:
    """Set the initial values of `add_tasks`: embeddings are normal draws with standard deviation 1/sqrt(embedding
    size), as in the reference, where that is N(0, 1/32)."""
    table, one_hot = module._parameters["task_embeddings"], module._buffers["one_hot"]
    if table is not None:
        nn.init.normal_(table, std=1.0 / math.sqrt(table.shape[1]))
    if one_hot is not None:
        one_hot.zero_().fill_diagonal_(1.0)


def task_rows(module: nn.Module, norm: str) -> Tensor | None:
    """Return what networks get as the input `task`, (tasks, size): the embeddings, each row scaled to a norm of 1, or
    one-hot rows; None where networks have no such input."""
    table = module._parameters["task_embeddings"]
    return module._buffers["one_hot"] if table is None else normalized(table, norm)


def use_statistics(norms: list[BatchNorm], statistics: Statistics) -> None:
    """Let the next forward passes of these layers use other statistics."""
    for each in norms:
        each.statistics = statistics


class Critic(nn.Module):
    """The network of `registry.critic`, with one embedding table shared by all heads."""

    task_embeddings: nn.Parameter | None

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.embedding_norm = spec.embedding_norm
        network = registry.critic(spec)
        self.steps, _ = add_layers(self, network.layers, network.shape(OBSERVATION), network)
        self.plan = planned(self.steps)
        self.norms = batch_norms(self)
        add_tasks(self, spec)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        reset_tasks(self)

    def embedding_table(self) -> Tensor | None:
        """Return (tasks, embedding), each row normalised by L2 (the reference) or L1 (the paper's text), or one-hot
        rows; None where networks are not told the task."""
        return task_rows(self, self.embedding_norm)

    def embed(self, task_ids: Tensor) -> Tensor | None:
        """Return the rows of the embedding table, (batch, embedding), for (batch,) int64 task ids."""
        table = self.embedding_table()
        return None if table is None else F.embedding(task_ids, table)

    def forward(self, observations: Tensor, actions: Tensor, embedding: Tensor | None) -> Tensor:
        """Return logits (heads, batch, bins). `embedding` is the result of `embed`."""
        inputs = {OBSERVATION: observations, ACTION: actions} | ({} if embedding is None else {TASK: embedding})
        found: Tensor = run(self.plan, observations, inputs)
        return found


class Policy(nn.Module):
    """The network of `registry.policy`. It does not read privileged numbers."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.observed = spec.observation_size if spec.privileged_size else None
        network = registry.policy(spec)
        self.steps, _ = add_layers(self, network.layers, network.shape(OBSERVATION), network)
        self.plan = planned(self.steps)
        self.norms = batch_norms(self)

    def forward(self, observations: Tensor, embedding: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the mean and log standard deviation, each (batch, actions), of the Gaussian before the tanh, for
        observations as critics see them."""
        if self.observed is not None:
            observations = observations[:, : self.observed].contiguous()
        inputs = {OBSERVATION: observations} | ({} if embedding is None else {TASK: embedding})
        found = run(self.plan, observations, inputs)
        return found["mean"], found["log_std"]


class DiscreteCritic(nn.Module):
    """The network of `registry.discrete_critic`, with one embedding table shared by all heads."""

    available: Tensor
    task_embeddings: nn.Parameter | None

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        network = registry.discrete_critic(spec)
        self.steps, _ = add_layers(self, network.layers, network.shape(OBSERVATION), network)
        self.plan = planned(self.steps)
        channels_last(self)
        add_tasks(self, spec)
        available = torch.empty(len(spec.num_actions), spec.most_actions, dtype=torch.bool)
        self.register_buffer("available", available, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        reset_tasks(self)
        self.available.zero_()
        for task, count in enumerate(self.spec.num_actions):
            self.available[task, :count] = True

    def embedding_table(self) -> Tensor | None:
        """Return the same as that of a Critic."""
        return task_rows(self, self.spec.embedding_norm)

    def forward(self, observations: Tensor, task_ids: Tensor) -> Tensor:
        """Return logits (heads, B, actions, bins) for observations (B, observation). Images are scaled to [0, 1]."""
        rows, table = len(observations), self.embedding_table()
        x = observations.view(rows, *self.spec.observation_shape)
        logits: Tensor = run(
            self.plan, x, {OBSERVATION: x} | ({} if table is None else {TASK: F.embedding(task_ids, table)})
        )
        return logits.view(len(logits), rows, self.spec.most_actions, self.spec.num_bins)
