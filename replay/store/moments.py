"""Moments of running returns, for a reward scale by their deviation: how many, their mean, squares and largest value.

A running return is the discounted sum of the rewards so far, G <- discount (1 - done) G + r: the end of an episode
zeroes the past, so its last reward begins the next sum (SimbaV2, arXiv 2502.15280). Moments of different returns are
merged by Chan's rule. Merging is exact once for each: repeats would count twice.
"""

from __future__ import annotations

import numpy as np

SIZE = 4  # count, mean, sum of squared deviations from the mean, largest absolute value
NONE = np.zeros((0, SIZE))


def of(returns: np.ndarray) -> np.ndarray:
    """Return the moments (4,) float64 of returns (n,)."""
    values = returns.astype(np.float64)
    mean = values.mean()
    return np.array([len(values), mean, np.square(values - mean).sum(), np.abs(values).max()])


def merge(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the moments (..., 4) of all returns of which these are moments."""
    count = one[..., 0] + other[..., 0]
    share = other[..., 0] / np.maximum(count, 1.0)
    gap = other[..., 1] - one[..., 1]
    squares = one[..., 2] + other[..., 2] + np.square(gap) * one[..., 0] * share
    return np.stack([count, one[..., 1] + gap * share, squares, np.maximum(one[..., 3], other[..., 3])], axis=-1)
