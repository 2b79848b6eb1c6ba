"""Losses of critics, which also define the meaning of the outputs: categorical returns, or values by squared error.

A loss is a Loss. `--learner.loss` names a loss in LOSSES. To add a loss, write it here and add it to LOSSES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from learner.agents import categorical
from learner.config import LearnerConfig
from learner.networks import triton_switch


class Loss(Protocol):
    """The loss of a critic with H heads, B rows and N outputs of each head."""

    def values(self, outputs: Tensor) -> Tensor:
        """Return the values that the outputs represent: (..., N) -> (...)."""

    def target(self, outputs: Tensor, rewards: Tensor, discounts: Tensor, costs: Tensor | None) -> Tensor:
        """Return the target (B, n), r + d * (Q' - c), from the target network's outputs (H, B, N) for the next action.

        `rewards`, `discounts` and `costs` are (B,). Discounts are 0 where the next state is terminal. Costs are the
        temperature times the log-density of the next action; None in an agent without entropy.
        """

    def target_values(self, target: Tensor) -> Tensor:
        """Return the values that a target represents: (B, n) -> (B,)."""

    def rows(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss (H, B) of each row for each head."""


@dataclass(frozen=True)
class Categorical:
    """Cross-entropy with the projected mean of the target heads' distributions (docs/algorithm.md, One update). Outputs
    are logits over atoms in [-limit, limit]."""

    limit: float

    def values(self, outputs: Tensor) -> Tensor:
        return categorical.expectation(outputs, self._atoms(outputs))

    def target(self, outputs: Tensor, rewards: Tensor, discounts: Tensor, costs: Tensor | None) -> Tensor:
        if triton_switch.serves(outputs) and outputs.shape[-1] <= categorical.MOST_BINS:
            from learner.agents import losses_triton

            return losses_triton.target(outputs, self._atoms(outputs), rewards, discounts, costs, self.limit)
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
    """Squared distance, without a factor of 1/2, between the value of a head and the target, which uses the mean value
    of the heads that it is given. The single output of a head is its value."""

    limit: float  # returns are scaled to [-limit, limit]; values are not bounded

    def values(self, outputs: Tensor) -> Tensor:
        return outputs.squeeze(-1)

    def target(self, outputs: Tensor, rewards: Tensor, discounts: Tensor, costs: Tensor | None) -> Tensor:
        value = self.values(outputs).mean(dim=0)
        return (rewards + discounts * (value if costs is None else value - costs)).unsqueeze(-1)

    def target_values(self, target: Tensor) -> Tensor:
        return target.squeeze(-1)

    def rows(self, outputs: Tensor, target: Tensor) -> Tensor:
        return (self.values(outputs) - target.squeeze(-1)).square()


# The keys are the values of --learner.loss. A loss is made from its one argument, the limit that returns are scaled to.
LOSSES: dict[str, Callable[[float], Loss]] = {"categorical": Categorical, "mse": SquaredError}


def critic_loss(config: LearnerConfig) -> Loss:
    """Return the loss that a configuration names."""
    return LOSSES[config.loss](config.value_limit)


def least(loss: Loss, outputs: Tensor) -> Tensor:
    """Return, of outputs (H, B, N), those of the head with the least value for each row, (1, B, N)."""
    head = loss.values(outputs).argmin(dim=0)
    return outputs.gather(0, head[None, :, None].expand(1, *outputs.shape[1:]))


def value_over_heads(values: Tensor, config: LearnerConfig) -> Tensor:
    """Return what a policy maximises of the heads' values (H, B): (B,)."""
    return values.mean(dim=0) if config.target == "mean" else values.min(dim=0).values


def target_over_heads(loss: Loss, outputs: Tensor, config: LearnerConfig) -> Tensor:
    """Return the target network's outputs (H or 1, B, N), of whose heads the loss takes the mean."""
    return outputs if config.target == "mean" else least(loss, outputs)


def row_losses(outputs: Tensor, target: Tensor, config: LearnerConfig) -> Tensor:
    """Return the losses (H, B) of rows, whose sum over heads is the loss of a row."""
    rows = critic_loss(config).rows(outputs, target)
    return rows / len(rows) if config.heads_loss == "mean" else rows


def backward(rows: Tensor, weights: Tensor | None = None) -> Tensor:
    """Set the gradients of the losses of rows (H, B), summed over heads: of their mean over rows or, after surgery, of
    their sum with these weights (B,). Return the mean, 0-d."""
    mean = rows.mean(dim=-1).sum()
    (mean if weights is None else (rows @ weights).sum()).backward()
    return mean.detach()
