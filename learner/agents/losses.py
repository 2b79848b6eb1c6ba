"""What a critic's outputs stand for, and the loss by which they are learned: categorical returns, or a squared error.

A loss is a Loss; LOSSES has those that `--learner.loss` names. To add one, write it here and register it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from learner.agents import categorical
from learner.config import LearnerConfig


class Loss(Protocol):
    """H heads, B rows, N outputs of each head."""

    def values(self, outputs: Tensor) -> Tensor:
        """(..., N) -> (...): the values that outputs stand for."""

    def target(self, outputs: Tensor, rewards: Tensor, discounts: Tensor, costs: Tensor | None) -> Tensor:
        """(B, n): what is learned, r + d * (Q' - c), of the target's outputs (H, B, N) for the next action. `rewards`,
        `discounts` and `costs` are (B,); discounts are 0 where the next state is terminal."""

    def target_values(self, target: Tensor) -> Tensor:
        """(B, n) -> (B,): the values that a target stands for."""

    def rows(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(H, B): the loss of each row for each head."""


@dataclass(frozen=True)
class Categorical:
    """Outputs are logits over atoms in [-limit, limit]; the loss is the cross-entropy with the projected mean of the
    target heads' distributions (spec section 2). There is no minimum over heads: the reference has no pessimism."""

    limit: float

    def values(self, outputs: Tensor) -> Tensor:
        return categorical.expectation(outputs, self._atoms(outputs))

    def target(self, outputs: Tensor, rewards: Tensor, discounts: Tensor, costs: Tensor | None) -> Tensor:
        probabilities = torch.softmax(outputs, dim=-1).mean(dim=0)
        atoms = self._atoms(outputs)
        shifted = atoms if costs is None else atoms - costs.unsqueeze(-1)
        moved = rewards.unsqueeze(-1) + discounts.unsqueeze(-1) * shifted
        return categorical.project(probabilities, moved, self.limit)

    def target_values(self, target: Tensor) -> Tensor:
        return target @ self._atoms(target)

    def rows(self, outputs: Tensor, target: Tensor) -> Tensor:
        return categorical.cross_entropy(outputs, target)

    def _atoms(self, like: Tensor) -> Tensor:
        return categorical.support(like.shape[-1], self.limit, like)


@dataclass(frozen=True)
class SquaredError:
    """The one output is the value; the loss is its squared distance, without a half, from the target built of the mean
    over target heads (spec of critics, section 2)."""

    limit: float  # that returns are scaled to; values are not bounded

    def values(self, outputs: Tensor) -> Tensor:
        return outputs.squeeze(-1)

    def target(self, outputs: Tensor, rewards: Tensor, discounts: Tensor, costs: Tensor | None) -> Tensor:
        value = self.values(outputs).mean(dim=0)
        return (rewards + discounts * (value if costs is None else value - costs)).unsqueeze(-1)

    def target_values(self, target: Tensor) -> Tensor:
        return target.squeeze(-1)

    def rows(self, outputs: Tensor, target: Tensor) -> Tensor:
        return (self.values(outputs) - target.squeeze(-1)).square()


# By the name of --learner.loss, how it is made for a value limit.
LOSSES: dict[str, Callable[[float], Loss]] = {"categorical": Categorical, "mse": SquaredError}


def critic_loss(config: LearnerConfig) -> Loss:
    """The one that a configuration names."""
    return LOSSES[config.loss](config.value_limit)
