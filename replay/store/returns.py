"""Discounted returns of an episode, by which BRC scales rewards."""

from __future__ import annotations

import numpy as np

LARGEST = float(np.finfo(np.float32).max)


def discounted_return_extremes(rewards: np.ndarray, goes_on: bool, discount: float) -> tuple[float, float]:
    """Return the least and the greatest discounted return from any step of an episode (docs/algorithm.md).

    An episode that was only cut by its limit `goes_on`: it is taken to give its mean reward for ever, so G_n = mean(r)
    / (1 - discount). A terminated episode ends with G_n = 0, also if its limit fell on the same step. Both results are
    clipped to float32's range.
    """
    values = rewards.tolist()
    value = sum(values) / len(values) / (1.0 - discount) if goes_on else 0.0
    least, greatest = np.inf, -np.inf
    for reward in reversed(values):
        value = reward + discount * value
        least, greatest = min(least, value), max(greatest, value)
    return max(least, -LARGEST), min(greatest, LARGEST)


def running_returns(rewards: np.ndarray, discount: float) -> np.ndarray:
    """Return the discounted sums of an episode's rewards so far, (n,) float64. An ending's last reward begins the next
    sum (replay.store.moments), so here it counts alone."""
    found, total = np.zeros(len(rewards)), 0.0
    for step, reward in enumerate(rewards.tolist()):
        total = reward + (discount * total if step < len(rewards) - 1 else 0.0)
        found[step] = total
    return found
