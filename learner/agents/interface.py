"""What an agent offers: a state to train, an update of it, and what of it acts. learner.py trains any that does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from learner.agents.gradients import Combine
from learner.config import LearnerConfig
from learner.networks.spec import NetworkSpec

Prepare = Callable[[nn.Module], None]


class Batch(NamedTuple):
    """Transitions of B rows. `rewards` are normalised; `masks` is 0 where the next state is terminal, else 1; with n
    steps discount^(n - 1)."""

    observations: Tensor  # (B, observation)
    actions: Tensor  # (B, action); the index of a discrete one in the first column
    rewards: Tensor  # (B,)
    masks: Tensor  # (B,)
    next_observations: Tensor  # (B, observation)
    task_ids: Tensor  # (B,) int64


class State(Protocol):
    """What an update reads and writes."""

    def modules(self) -> dict[str, nn.Module]:
        """Networks by their names in checkpoints."""

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By the names of what they train: a network's, or a scalar's."""

    def scalars(self) -> dict[str, nn.Parameter]:
        """What is learned besides, by its name in checkpoints."""

    def table(self) -> nn.Parameter | None:
        """The embeddings of tasks before they are normalised, (tasks, size); None for a single task."""

    def embedding_table(self) -> Tensor | None:
        """The normalised ones, which are published."""

    def temperature(self) -> Tensor:
        """The weight of entropy in rewards, 0-d; 0 where there is none."""


@dataclass(frozen=True)
class Agent:
    """An algorithm.

    Attributes:
        initial_state: (networks, config, dtype, device, prepare) -> fresh state, of torch's global generator.
            `prepare` is called with every network, the target included, before its optimiser is made.
        update: (state, batch, noise, config, diagnostics, combine) -> metrics, 0-d tensors by name. It advances the
            state by one gradient step, draws no random numbers and reads no clock. `noise` is (draws, B, action).
        draws: standard normal numbers that an update takes for each action of a row.
        modules: (networks) -> fresh networks, by their names in checkpoints.
        target_entropy: (networks, config) -> what the entropy is held at; 0 where it plays no part.
    """

    initial_state: Callable[[NetworkSpec, LearnerConfig, torch.dtype, torch.device | str, Prepare], Any]
    update: Callable[[Any, Batch, Tensor, LearnerConfig, bool, Combine], dict[str, Tensor]]
    draws: int
    modules: Callable[[NetworkSpec], dict[str, nn.Module]]
    target_entropy: Callable[[NetworkSpec, LearnerConfig], float]
