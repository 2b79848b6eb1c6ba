"""Returns, lengths and successes of a pool's episodes, and the extremes of their discounted returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from actors.environments import Step

LARGEST = float(np.finfo(np.float32).max)


class Episode(NamedTuple):
    """A finished episode of one copy."""

    task: int
    undiscounted_return: float
    length: int
    success: bool


class EpisodeTracker:
    """Follows the raw rewards of all copies of one task."""

    def __init__(self, task: int, copies: int, discount: float, episode_limit: int) -> None:
        self.task = task
        self.discount = discount
        self.rewards = np.zeros((copies, episode_limit), np.float32)
        self.lengths = np.zeros(copies, np.int64)
        self.successes = np.zeros(copies, bool)
        self.copies = np.arange(copies)

    def append(self, step: Step) -> tuple[list[Episode], tuple[float, float] | None]:
        """Take in a step; returns the episodes it ended and the extremes of their discounted returns, if any.

        Raises RuntimeError for an environment that does not keep to its limit.
        """
        try:
            self.rewards[self.copies, self.lengths] = step.rewards
        except IndexError:
            limit = self.rewards.shape[1]
            raise RuntimeError(
                f"an episode of the run's task {self.task} goes on beyond its limit of {limit} steps: its environment "
                f"is to end or truncate it"
            ) from None
        self.lengths += 1
        self.successes |= step.successes
        if step.next_inputs is step.observations:
            return [], None
        episodes, least, greatest = [], np.inf, -np.inf
        for copy in np.flatnonzero(step.terminated | step.truncated):
            rewards = self.rewards[copy, : self.lengths[copy]]
            goes_on = bool(step.truncated[copy] and not step.terminated[copy])
            low, high = discounted_return_extremes(rewards, goes_on, self.discount)
            least, greatest = min(least, low), max(greatest, high)
            total = float(rewards.sum(dtype=np.float64))
            episodes.append(Episode(self.task, total, len(rewards), bool(self.successes[copy])))
            self.lengths[copy] = 0
            self.successes[copy] = False
        return episodes, (least, greatest) if episodes else None

    def drop(self, copies: np.ndarray) -> None:
        """Forget the episodes that these copies are in."""
        self.lengths[copies] = 0
        self.successes[copies] = False

    def state(self) -> dict[str, Any]:
        return {"rewards": self.rewards, "lengths": self.lengths, "successes": self.successes}

    def load_state(self, state: dict[str, Any]) -> None:
        for name, array in self.state().items():
            array[...] = state[name]


def discounted_return_extremes(rewards: np.ndarray, goes_on: bool, discount: float) -> tuple[float, float]:
    """Least and greatest of the discounted returns from every step of an episode (spec section 4).

    An episode that was only cut by its limit `goes_on` at its mean reward for ever: G_n = mean(r) / (1 - discount). A
    terminated one ends with G_n = 0, also if its limit fell on the same step. Both are within float32's range.
    """
    values = rewards.tolist()
    value = sum(values) / len(values) / (1.0 - discount) if goes_on else 0.0
    least, greatest = np.inf, -np.inf
    for reward in reversed(values):
        value = reward + discount * value
        least, greatest = min(least, value), max(greatest, value)
    return max(least, -LARGEST), min(greatest, LARGEST)
