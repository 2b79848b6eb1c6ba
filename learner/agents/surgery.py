"""Gradient surgery: how much each task's gradient counts, found from the inner products of the tasks' gradients.

Every surgery here makes a weighted sum of the tasks' gradients. So it needs their Gram matrix alone, and one backward
pass of the weighted sum of losses (learner.agents.task_gradients).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from learner.config import LearnerConfig

# (Gram matrix (K, K) of the gradients of K tasks, orders (K, K)) -> weight of each task's mean loss (K,). Row i of the
# orders is a random permutation of the tasks.
Surgery = Callable[[Tensor, Tensor], Tensor]
NONE = "none"


def pcgrad(gram: Tensor, orders: Tensor, epsilon: float = 0.0) -> Tensor:
    """PCGrad (arXiv 2001.06782): from the gradient of a task, remove its component along each other task's gradient
    that it conflicts with, in the task's own order, and take the mean over tasks.

    Gradient i stays a combination of the original gradients, with coefficients in row i. One step of all rows removes
    the component along the next gradient in their orders. `epsilon` is added to the squares that it divides by.
    """
    coefficients = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    squares = gram.diagonal() + epsilon
    for others in orders.unbind(dim=1):
        products = (coefficients * gram[others]).sum(dim=1)
        square = squares[others]
        cut = torch.where((products < 0) & (square > 0), products / square, 0.0)
        coefficients.scatter_add_(1, others[:, None], -cut[:, None])
    return coefficients.mean(dim=0)


# The keys are values of --learner.surgery, besides `none`.
SURGERIES: dict[str, Surgery] = {"pcgrad": pcgrad}


def surgery_of(config: LearnerConfig) -> Surgery | None:
    """Return the surgery that a configuration names; None for none."""
    return None if config.surgery == NONE else SURGERIES[config.surgery]


def conflict(gram: Tensor) -> dict[str, Tensor]:
    """Return the share of pairs of tasks whose gradients have a negative cosine, and the mean cosine of pairs.

    Tasks without a gradient, such as those that have no row in a batch, are in no pair. Without a pair both are 0.
    """
    norms = gram.diagonal().clamp_min(0.0).sqrt()
    pairs = torch.triu(norms[:, None] * norms > 0, diagonal=1)
    cosines = gram / torch.where(pairs, norms[:, None] * norms, 1.0)
    count = pairs.sum().clamp_min(1).to(gram.dtype)
    return {
        "conflict_share": ((cosines < 0) & pairs).sum() / count,
        "conflict_cosine": torch.where(pairs, cosines, 0.0).sum() / count,
    }
