"""Categorical value distributions: their support, the projection of a Bellman target, and the expectation."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from learner.networks import triton_switch

MOST_BINS = 128  # that the kernel of a GPU projects; it holds a square of them in registers


def support(num_bins: int, value_limit: float, like: Tensor) -> Tensor:
    """Return the atoms -V + i * 2V / (bins - 1), shape (bins,), with the dtype and on the device of `like`."""
    return atoms(num_bins, value_limit, like.dtype, like.device)


@cache
def atoms(num_bins: int, value_limit: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the result of `support`. It is made once: updates ask for it several times each."""
    # Rounded once, from float64: a float32 product is off by up to two units in the last place.
    values = torch.arange(num_bins, dtype=torch.float64, device=device) * (2.0 * value_limit / (num_bins - 1))
    return (values - value_limit).to(dtype)


def expectation(logits: Tensor, atoms: Tensor) -> Tensor:
    """Return the mean of `atoms` under softmax(logits); (..., bins) -> (...)."""
    if triton_switch.serves(logits):
        from learner.agents import losses_triton

        return losses_triton.expectation(logits, atoms)
    return torch.softmax(logits, dim=-1) @ atoms


def project(probabilities: Tensor, targets: Tensor, value_limit: float) -> Tensor:
    """Distribute the mass of each atom over the two bins nearest to the value that it moves to.

    Args:
        probabilities: (batch, bins), the mass of each source atom.
        targets: (batch, bins), the value that each source atom moves to; clipped to [-value_limit, value_limit].
    Returns:
        (batch, bins): y_j = sum_i p_i max(0, 1 - |t_i - j|), t the clipped target in units of bins.

    The lower bin and the fraction come from one computation, so rounding at the edge of a bin cannot pair the weight of
    one bin with the index of another. Mass is conserved for every input.
    """
    last = probabilities.shape[-1] - 1
    position = (targets.clamp(-value_limit, value_limit) + value_limit) * (last / (2.0 * value_limit))
    # A NaN must give NaN, which is found in the loss, and not an index out of range.
    lower = torch.nan_to_num(position).floor_().clamp_(0, last - 1)
    upper_mass = probabilities * (position - lower)
    index = lower.long()
    projected = torch.zeros_like(probabilities)
    projected.scatter_add_(-1, index, probabilities - upper_mass)
    projected.scatter_add_(-1, index + 1, upper_mass)
    return projected


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return -sum_j target_j log_softmax(logits)_j, (heads, batch), for logits (heads, batch, bins) and a target
    (batch, bins)."""
    if triton_switch.serves(logits):
        from learner.agents import losses_triton

        return losses_triton.cross_entropy(logits, target)
    return -(target * torch.log_softmax(logits, dim=-1)).sum(dim=-1)
