"""The door to replay: it drops episodes with bad numbers, which cannot be learned from.

A bad number is NaN, infinite or beyond LARGEST_NUMBER. One in one row would reach every parameter of the learner. Most
often the simulation has become unstable, so the steps before and after the bad number cannot be trusted either.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

from actors.environments import Environment, Step
from replay.store.soundness import LARGEST_NUMBER, all_numbers, are_numbers

MOST_IN_A_ROW = 10  # dropped episodes of a copy, without a sound episode in between
NONE = np.zeros(0, np.int64)


class BadNumber(NamedTuple):
    """A bad number in a reward or an observation. `task` is the task's index in the run; `copy` is the number of the
    copy over all actors."""

    task: int
    name: str
    copy: int
    what: str  # reward, observation[2], first observation[0]
    value: float

    def __str__(self) -> str:
        said = f"{self.name} returned {self.value} as {self.what} in environment copy {self.copy}"
        return f"{said}, beyond {LARGEST_NUMBER:g}" if math.isfinite(self.value) else said


class OnlyBadNumbers(RuntimeError):
    """MOST_IN_A_ROW episodes in a row of one environment copy were dropped. `last` is the last one's bad number."""

    def __init__(self, last: BadNumber) -> None:
        super().__init__(f"bad numbers in {MOST_IN_A_ROW} episodes in a row, at last: {last}")
        self.last = last


class Door:
    """Checks every step of the copies of one task.

    Args:
        task: index of the task in the run.
        first_copy: the number of the first copy over all actors.
        found: every bad number that costs an episode is appended to it.
    """

    def __init__(self, task: int, environment: Environment, first_copy: int, found: deque[BadNumber]) -> None:
        self.task = task
        self.environment = environment
        self.first_copy = first_copy
        self.found = found
        self.in_a_row = np.zeros(environment.copies, np.int64)  # dropped episodes of each copy

    def check(self, step: Step) -> tuple[Step, np.ndarray]:
        """Return the step, and the copies whose episode must be dropped, including the bad transition.

        These copies have been reset or are idle, so `next_inputs` hold no bad number. Their flags say that the episode
        goes on. Raises OnlyBadNumbers.
        """
        ended = step.next_inputs is not step.observations
        if all_numbers(step.rewards, step.observations) and (not ended or all_numbers(step.next_inputs)):
            if ended:
                self.in_a_row[step.terminated | step.truncated] = 0
            return step, NONE
        over = step.terminated | step.truncated
        dropped = ~sound(step)
        if step.idle is not None:
            dropped &= ~step.idle
        self.in_a_row[over & ~dropped] = 0
        rewarded = are_numbers(step.rewards)
        for copy in np.flatnonzero(dropped).tolist():
            if rewarded[copy]:
                self._found(copy, "observation", step.observations[copy])
            else:
                self._found(copy, "reward", step.rewards[copy])
        inputs = self.begun(step.next_inputs, dropped & ~over)
        terminated, truncated = step.terminated & ~dropped, step.truncated & ~dropped
        return step._replace(next_inputs=inputs, terminated=terminated, truncated=truncated), np.flatnonzero(dropped)

    def begun(self, inputs: np.ndarray, again: np.ndarray) -> np.ndarray:
        """Return the inputs to act on, (copies, *observation), after resets. Raises OnlyBadNumbers.

        Copies `again` (copies,) bool are reset. Then copies whose observation holds a bad number are reset until none
        does.
        """
        inputs = inputs.copy()
        while True:
            if again.any():
                inputs[again] = self.environment.restart(np.flatnonzero(again))
            again = ~sound_rows(inputs)
            if not again.any():
                return inputs
            for copy in np.flatnonzero(again).tolist():
                self._found(copy, "first observation", inputs[copy])

    def _found(self, copy: int, what: str, values: np.ndarray) -> None:
        flat = np.ravel(values)
        index = int(np.flatnonzero(~are_numbers(flat))[0])
        place = f"{what}[{index}]" if np.ndim(values) else what
        bad = BadNumber(self.task, self.environment.task.name, self.first_copy + copy, place, float(flat[index]))
        self.found.append(bad)
        self.in_a_row[copy] += 1
        if self.in_a_row[copy] >= MOST_IN_A_ROW:
            raise OnlyBadNumbers(bad)


def sound(step: Step) -> np.ndarray:
    """Return (copies,) bool: whether a copy's reward and observation are free of bad numbers."""
    return np.asarray(are_numbers(step.rewards) & sound_rows(step.observations))


def sound_rows(values: np.ndarray) -> np.ndarray:
    """Return (rows,) bool for `values` (rows, *shape): whether a row is free of bad numbers."""
    return np.asarray(are_numbers(values).reshape(len(values), -1).all(axis=1))
