"""Cuts the streams of a pool's copies into segments of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.benchmarks.benchmark import Task
from actors.environments import Step
from replay.store.rows import CONTEXT, LAST, TERMINAL, Rows


class SegmentBuilder:
    """Collects steps of all copies of one task and hands them out as Rows, copy after copy.

    An episode end closes a copy's segment with the true last observation; `take` closes all open ones. So `length`
    steps give one segment a copy, plus one for each episode that ended inside.

    Of a stack of frames, a row holds the newest frame. A segment that continues an episode begins with rows for the
    earlier frames of its first stack.
    """

    def __init__(self, copies: int, task: Task, action_size: int, length: int) -> None:
        self.stack = task.image[0] if task.image else 1
        # The largest number: every step ends an episode and takes a second row.
        rows = 2 * length + 1 + self.stack - 1
        self.length = length
        shape = task.image[1:] if self.stack > 1 else task.observation_shape
        self.observations = np.zeros((copies, rows, *shape), task.observation_dtype)
        self.actions = np.zeros((copies, rows, action_size), np.float32)
        self.rewards = np.zeros((copies, rows), np.float32)
        self.flags = np.zeros((copies, rows), np.uint8)
        self.copies = np.arange(copies)
        self.position = np.zeros(copies, np.int64)
        self.steps = 0
        self.ages = np.zeros(copies, np.int64)  # steps of the current episodes, counted only for stacks of frames

    def append(self, inputs: np.ndarray, actions: np.ndarray, step: Step) -> None:
        """Add the transition of every copy that is not idle: the observation acted on, the whole action, and the
        resulting step."""
        if self.stack > 1:
            if self.steps == 0:
                self._begin(inputs)
            inputs = inputs[:, -1]
            self.ages += 1
        copies, at = self.copies, self.position
        rewards, flags = step.rewards, np.where(step.terminated, TERMINAL, 0)
        if step.idle is not None:
            copies = np.flatnonzero(~step.idle)
            at, inputs, actions, rewards, flags = (array[copies] for array in (at, inputs, actions, rewards, flags))
        self.observations[copies, at] = inputs
        self.actions[copies, at] = actions
        self.rewards[copies, at] = rewards
        self.flags[copies, at] = flags
        self.position[copies] += 1
        self.steps += 1
        if step.next_inputs is not step.observations:  # some episode ended
            ended = np.flatnonzero(step.terminated | step.truncated)
            self._end(ended, step.observations)
            self.ages[ended] = 0

    def _begin(self, inputs: np.ndarray) -> None:
        """Add the earlier frames that the stacks of the first rows need."""
        for copy, age in enumerate(np.minimum(self.ages, self.stack - 1).tolist()):
            self.observations[copy, :age] = inputs[copy, self.stack - 1 - age : -1]
            self.actions[copy, :age], self.rewards[copy, :age], self.flags[copy, :age] = 0.0, 0.0, CONTEXT
            self.position[copy] = age

    def _end(self, copies: np.ndarray, observations: np.ndarray) -> None:
        at = self.position[copies]
        ended = observations[copies]
        self.observations[copies, at] = ended[:, -1] if self.stack > 1 else ended
        self.actions[copies, at] = 0.0
        self.rewards[copies, at] = 0.0
        self.flags[copies, at] = LAST
        self.position[copies] += 1

    def drop(self, copies: np.ndarray) -> None:
        """Forget the held rows of these copies' current episodes. Segments of these episodes that were handed out stay
        valid: each ends with an observation that was acted on. The copies begin new episodes."""
        for copy in copies.tolist():
            ends = np.flatnonzero(self.flags[copy, : self.position[copy]] & LAST)
            self.position[copy] = ends[-1] + 1 if len(ends) else 0
        self.ages[copies] = 0

    @property
    def full(self) -> bool:
        return self.steps == self.length

    def take(self, inputs: np.ndarray) -> Rows:
        """Return all collected rows, and become empty. The observation to act on next ends the open segments."""
        is_open = self.flags[self.copies, self.position - 1] != LAST
        open_copies = np.flatnonzero(is_open & (self.position > 0))  # a copy with a dropped episode may hold no row
        self._end(open_copies, inputs)
        held = np.arange(self.flags.shape[1]) < self.position[:, None]
        rows = Rows(self.observations[held], self.actions[held], self.rewards[held], self.flags[held])
        self.position[:] = 0
        self.steps = 0
        return rows

    def state(self) -> dict[str, Any]:
        return {"position": self.position, "steps": self.steps, "ages": self.ages} | {
            name: getattr(self, name) for name in Rows._fields
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.position[:] = state["position"]
        self.ages[:] = state["ages"]
        self.steps = int(state["steps"])
        for name in Rows._fields:
            getattr(self, name)[...] = state[name]
