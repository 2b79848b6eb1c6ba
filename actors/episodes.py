"""Returns, lengths and successes of a pool's episodes, and the extremes of their discounted returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from actors.environments import Step
from replay.store import moments
from replay.store.returns import discounted_return_extremes

STEPS_AT_FIRST = 1024  # steps with room at the start: a huge limit may mean that there is none


class Episode(NamedTuple):
    """A finished episode of one copy."""

    task: int
    undiscounted_return: float
    length: int
    success: bool


class EpisodeTracker:
    """Tracks the raw rewards of all copies of one task. Its arrays grow with the episodes."""

    def __init__(
        self, task: int, copies: int, discount: float, episode_limit: int, measures_returns: bool = False
    ) -> None:
        """With `measures_returns` it keeps moments of running returns (replay.store.moments)."""
        self.task = task
        self.discount = discount
        self.limit = episode_limit
        self.rewards = np.zeros((copies, min(STEPS_AT_FIRST, episode_limit)), np.float32)
        self.lengths = np.zeros(copies, np.int64)
        self.successes = np.zeros(copies, bool)
        self.copies = np.arange(copies)
        self.running = np.zeros(copies) if measures_returns else None
        self.moments = np.zeros(moments.SIZE)  # since they were last taken

    def append(self, step: Step) -> tuple[list[Episode], tuple[float, float] | None]:
        """Record a step; return the episodes it ended and the extremes of their discounted returns, if any.

        Raises RuntimeError if an episode goes on beyond its limit.
        """
        copies = self.copies if step.idle is None else np.flatnonzero(~step.idle)
        at, rewards = self.lengths[copies], step.rewards[copies]
        if len(copies) and (longest := int(at.max())) >= self.rewards.shape[1]:
            self._grow(longest + 1)
        self.rewards[copies, at] = rewards
        if self.running is not None and len(copies):
            goes_on = ~(step.terminated | step.truncated)[copies]
            self.running[copies] = self.discount * goes_on * self.running[copies] + rewards
            self.moments = moments.merge(self.moments, moments.of(self.running[copies]))
        self.lengths[copies] += 1
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

    def _grow(self, steps: int) -> None:
        """Make room for twice `steps` steps, at most for the limit. Raises RuntimeError if `steps` is beyond it."""
        if steps > self.limit:
            raise RuntimeError(
                f"an episode of the run's task {self.task} goes on beyond its limit of {self.limit} steps: its "
                f"environment is to end or truncate it"
            )
        more = min(2 * steps, self.limit) - self.rewards.shape[1]
        self.rewards = np.pad(self.rewards, ((0, 0), (0, more)))

    def drop(self, copies: np.ndarray) -> None:
        """Forget the current episodes of these copies."""
        self.lengths[copies] = 0
        self.successes[copies] = False
        if self.running is not None:
            self.running[copies] = 0.0

    def take_moments(self) -> np.ndarray | None:
        """Return the moments of running returns since the last call; None if there are none."""
        if not self.moments[0]:
            return None
        taken, self.moments = self.moments, np.zeros(moments.SIZE)
        return taken

    def state(self) -> dict[str, Any]:
        """Return the current episodes, with as many steps of rewards as the longest of them has."""
        rewards = self.rewards[:, : self.lengths.max()]
        found = {"rewards": rewards, "lengths": self.lengths, "successes": self.successes}
        return found if self.running is None else found | {"running": self.running, "moments": self.moments}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned; it may have more steps of rewards than there is room for."""
        self.lengths[:], self.successes[:] = state["lengths"], state["successes"]
        steps = int(self.lengths.max())
        if steps > self.rewards.shape[1]:
            self._grow(steps)
        self.rewards[:, :steps] = state["rewards"][:, :steps]
        if self.running is not None:
            self.running, self.moments = np.array(state["running"]), np.array(state["moments"])
