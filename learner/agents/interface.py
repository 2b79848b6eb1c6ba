"""The interface of an agent, which learner.py trains: its state, its update, its networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from learner.agents.optimizers import AdamW
from learner.config import LearnerConfig
from learner.networks.spec import NetworkSpec

Prepare = Callable[[nn.Module], None]


class Batch(NamedTuple):
    """B transitions. Behind what policies see, observations may hold privileged numbers. `rewards` are normalised.
    `masks` is 0 where the next state is terminal, else 1; with n-step returns, discount^(n - 1)."""

    observations: Tensor  # (B, *critic_shape)
    actions: Tensor  # (B, action); the first column holds the index of a discrete action
    rewards: Tensor  # (B,)
    masks: Tensor  # (B,)
    next_observations: Tensor  # (B, *critic_shape)
    task_ids: Tensor  # (B,) int64


class State(Protocol):
    """The state that an update reads and writes."""

    def modules(self) -> dict[str, nn.Module]:
        """Return the networks by their names in checkpoints."""

    def optimizers(self) -> dict[str, AdamW]:
        """Return the optimisers. The key of each is the name of the network or scalar that it trains."""

    def scalars(self) -> dict[str, nn.Parameter]:
        """Return the learned scalars by their names in checkpoints."""

    def table(self) -> nn.Parameter | None:
        """Return the task embeddings before normalisation, (tasks, size); None for a single task."""

    def embedding_table(self) -> Tensor | None:
        """Return the normalised task embeddings, which are published; None for a single task."""

    def temperature(self) -> Tensor:
        """Return the weight of the entropy term in returns, 0-d; 0 for an agent without an entropy term."""


@dataclass(frozen=True)
class Agent:
    """An algorithm.

    Attributes:
        initial_state: (networks, config, dtype, device, prepare) -> new state, initialised from torch's global
            generator. `prepare` is called with every network, the target included, before its optimiser is made and,
            where it is made on the meta device, before it has memory.
        update: (state, batch, noise, config, diagnostics, orders, moves) -> metrics, 0-d tensors by name. It advances
            the state by one gradient step, draws no random numbers and reads no clock. `noise` is (draws, B, action).
            `orders` (2, K, K) are random orders of the tasks for gradient surgery, None without it. Without `moves` a
            policy rests (`--learner.policy-interval`).
        draws: standard normal numbers that an update needs for each action dimension of a row.
        modules: (networks) -> new networks by their names in checkpoints.
        conflicts: (state, batch, noise, temperature, config) -> how much tasks' gradients of the critic conflict, 0-d
            tensors by name. It changes nothing.
        target_entropy: (networks, config) -> target entropy; 0 for an agent without an entropy term.
    """

    initial_state: Callable[[NetworkSpec, LearnerConfig, torch.dtype, torch.device | str, Prepare], Any]
    update: Callable[[Any, Batch, Tensor, LearnerConfig, bool, Tensor | None, bool], dict[str, Tensor]]
    draws: int
    modules: Callable[[NetworkSpec], dict[str, nn.Module]]
    target_entropy: Callable[[NetworkSpec, LearnerConfig], float]
    conflicts: Callable[[Any, Batch, Tensor, Tensor, LearnerConfig], dict[str, Tensor]]
