"""Categorical value distributions: their support, the projection of a Bellman target, and the expectation."""

from __future__ import annotations

import torch
from torch import Tensor


def support(num_bins: int, value_limit: float, like: Tensor) -> Tensor:
    """Atoms -V + i * 2V / (bins - 1), (bins,), in the dtype and device of `like`."""
    # Rounded once, from float64: a float32 product is off by up to two units in the last place.
    atoms = torch.arange(num_bins, dtype=torch.float64, device=like.device) * (2.0 * value_limit / (num_bins - 1))
    return (atoms - value_limit).to(like.dtype)


def expectation(logits: Tensor, atoms: Tensor) -> Tensor:
    """Mean of softmax(logits) over `atoms`; (..., bins) -> (...)."""
    return torch.softmax(logits, dim=-1) @ atoms


def project(probabilities: Tensor, targets: Tensor, value_limit: float) -> Tensor:
    """Distribute each atom's mass over the two bins nearest to where the atom moved.

    Args:
        probabilities: (batch, bins), the mass of each source atom.
        targets: (batch, bins), the value each source atom moves to; clipped to [-value_limit, value_limit].
    Returns:
        (batch, bins): y_j = sum_i p_i max(0, 1 - |t_i - j|), t the clipped target in units of bins.

    The lower bin and the fraction are computed once, so rounding at a bin's edge cannot send the mass of an atom to the
    wrong bin with the right weight (spec section 5.9); mass is conserved for every input.
    """
    last = probabilities.shape[-1] - 1
    position = (targets.clamp(-value_limit, value_limit) + value_limit) * (last / (2.0 * value_limit))
    # A NaN must come out as NaN, to be found in the loss, and not as an index out of range.
    lower = torch.nan_to_num(position).floor_().clamp_(0, last - 1)
    upper_mass = probabilities * (position - lower)
    index = lower.long()
    projected = torch.zeros_like(probabilities)
    projected.scatter_add_(-1, index, probabilities - upper_mass)
    projected.scatter_add_(-1, index + 1, upper_mass)
    return projected


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-sum_j target_j log_softmax(logits)_j over the last dimension; (..., bins) -> (...)."""
    return -(target * torch.log_softmax(logits, dim=-1)).sum(dim=-1)
