"""Cuts the streams of a pool's copies into segments of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.environments import Step
from replay.rows import LAST, TERMINAL, Rows


class SegmentBuilder:
    """Collects steps of all copies of one task and hands them out as Rows, copy after copy.

    An episode end closes a copy's segment with the true last observation; `take` closes all open ones. So `length`
    steps give one segment a copy, plus one for each episode that ended inside.
    """

    def __init__(self, copies: int, observation_size: int, action_size: int, length: int) -> None:
        rows = 2 * length + 1  # the most: every step ends an episode and takes a second row
        self.length = length
        self.observations = np.zeros((copies, rows, observation_size), np.float32)
        self.actions = np.zeros((copies, rows, action_size), np.float32)
        self.rewards = np.zeros((copies, rows), np.float32)
        self.flags = np.zeros((copies, rows), np.uint8)
        self.copies = np.arange(copies)
        self.position = np.zeros(copies, np.int64)
        self.steps = 0

    def append(self, inputs: np.ndarray, actions: np.ndarray, step: Step) -> None:
        """Add the transition of every copy: what was acted on, the whole action, and what came of it."""
        copies, at = self.copies, self.position
        self.observations[copies, at] = inputs
        self.actions[copies, at] = actions
        self.rewards[copies, at] = step.rewards
        self.flags[copies, at] = np.where(step.terminated, TERMINAL, 0)
        at += 1
        self.steps += 1
        if step.next_inputs is not step.observations:  # some episode ended
            self._end(np.flatnonzero(step.terminated | step.truncated), step.observations)

    def _end(self, copies: np.ndarray, observations: np.ndarray) -> None:
        at = self.position[copies]
        self.observations[copies, at] = observations[copies]
        self.actions[copies, at] = 0.0
        self.rewards[copies, at] = 0.0
        self.flags[copies, at] = LAST
        self.position[copies] += 1

    @property
    def full(self) -> bool:
        return self.steps == self.length

    def take(self, inputs: np.ndarray) -> Rows:
        """Everything collected, open segments ended by the observation that is acted on next; then empty."""
        open_copies = np.flatnonzero(self.flags[self.copies, self.position - 1] != LAST)
        self._end(open_copies, inputs)
        held = np.arange(self.flags.shape[1]) < self.position[:, None]
        rows = Rows(self.observations[held], self.actions[held], self.rewards[held], self.flags[held])
        self.position[:] = 0
        self.steps = 0
        return rows

    def state(self) -> dict[str, Any]:
        return {"position": self.position, "steps": self.steps} | {name: getattr(self, name) for name in Rows._fields}

    def load_state(self, state: dict[str, Any]) -> None:
        self.position[:] = state["position"]
        self.steps = int(state["steps"])
        for name in Rows._fields:
            getattr(self, name)[...] = state[name]
