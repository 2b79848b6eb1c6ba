"""The networks of the agents as torch modules. The critics also hold the task embeddings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner.networks import registry
from learner.networks.description import ACTION, OBSERVATION, TASK
from learner.networks.spec import NetworkSpec
from learner.networks.torch_network import add_layers, channels_last, planned, run


def normalized(table: Tensor, norm: str) -> Tensor:
    """Return the table with its rows scaled to an l2 or l1 norm of 1."""
    found: Tensor = table / torch.linalg.vector_norm(table, 2 if norm == "l2" else 1, dim=-1, keepdim=True)
    return found


def task_embeddings(spec: NetworkSpec) -> nn.Parameter | None:
    """Return a table (tasks, embedding) for normal draws with standard deviation 1/sqrt(embedding size), as in the
    reference, where that is N(0, 1/32). Return None for a single task."""
    return None if spec.num_tasks == 1 else nn.Parameter(torch.empty(spec.num_tasks, spec.embedding_size))


def draw_embeddings(table: nn.Parameter | None) -> None:
    """Set the initial values of a table of task embeddings."""
    if table is not None:
        nn.init.normal_(table, std=1.0 / math.sqrt(table.shape[1]))


class Critic(nn.Module):
    """The network of `registry.critic`, with one embedding table shared by all heads."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.embedding_norm = spec.embedding_norm
        network = registry.critic(spec)
        steps, _ = add_layers(self, network.layers, network.shape(OBSERVATION), network)
        self.plan = planned(steps)
        self.task_embeddings = task_embeddings(spec)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        draw_embeddings(self.task_embeddings)

    def embedding_table(self) -> Tensor | None:
        """Return (tasks, embedding), each row normalised by L2 (the reference) or L1 (the paper's text); None for a
        single task."""
        return None if self.task_embeddings is None else normalized(self.task_embeddings, self.embedding_norm)

    def embed(self, task_ids: Tensor) -> Tensor | None:
        """Return (batch, embedding) for (batch,) int64 task ids; None for a single task."""
        table = self.embedding_table()
        return None if table is None else F.embedding(task_ids, table)

    def forward(self, observations: Tensor, actions: Tensor, embedding: Tensor | None) -> Tensor:
        """Return logits (heads, batch, bins). `embedding` is the result of `embed`."""
        inputs = {OBSERVATION: observations, ACTION: actions} | ({} if embedding is None else {TASK: embedding})
        found: Tensor = run(self.plan, observations, inputs)
        return found


class Policy(nn.Module):
    """The network of `registry.policy`."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        network = registry.policy(spec)
        steps, _ = add_layers(self, network.layers, network.shape(OBSERVATION), network)
        self.plan = planned(steps)

    def forward(self, observations: Tensor, embedding: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the mean and log standard deviation, each (batch, actions), of the Gaussian before the tanh."""
        inputs = {OBSERVATION: observations} | ({} if embedding is None else {TASK: embedding})
        found = run(self.plan, observations, inputs)
        return found["mean"], found["log_std"]


class DiscreteCritic(nn.Module):
    """The network of `registry.discrete_critic`, with one embedding table shared by all heads."""

    available: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        network = registry.discrete_critic(spec)
        steps, _ = add_layers(self, network.layers, network.shape(OBSERVATION), network)
        self.plan = planned(steps)
        channels_last(self)
        self.task_embeddings = task_embeddings(spec)
        available = torch.empty(len(spec.num_actions), spec.most_actions, dtype=torch.bool)
        self.register_buffer("available", available, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        draw_embeddings(self.task_embeddings)
        self.available.zero_()
        for task, count in enumerate(self.spec.num_actions):
            self.available[task, :count] = True

    def embedding_table(self) -> Tensor | None:
        """Return (tasks, embedding), each row scaled to a norm of 1; None for a single task."""
        return None if self.task_embeddings is None else normalized(self.task_embeddings, self.spec.embedding_norm)

    def forward(self, observations: Tensor, task_ids: Tensor) -> Tensor:
        """Return logits (heads, B, actions, bins) for observations (B, observation). Images are scaled to [0, 1]."""
        rows, table = len(observations), self.embedding_table()
        x = observations.view(rows, *self.spec.observation_shape)
        logits: Tensor = run(
            self.plan, x, {OBSERVATION: x} | ({} if table is None else {TASK: F.embedding(task_ids, table)})
        )
        return logits.view(len(logits), rows, self.spec.most_actions, self.spec.num_bins)
