"""The door to replay: what environments return is let through only if it can be learned from.

A NaN, an infinite or a huge number in one row would reach every parameter of the learner. Most often it is a simulation
that has burst, so what the episode gave before it is as little to be trusted as what comes after.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

from actors.environments import Environment, Step
from replay.store.soundness import LARGEST_NUMBER, all_numbers, are_numbers

MOST_IN_A_ROW = 10  # episodes of a copy that are dropped without a sound one in between
NONE = np.zeros(0, np.int64)


class BadNumber(NamedTuple):
    """A reward or an observation that is no number to learn from. `task` is its index in the run, `copy` counts over
    all actors."""

    task: int
    name: str
    copy: int
    what: str  # reward, observation[2], first observation[0]
    value: float

    def __str__(self) -> str:
        said = f"{self.name} returned {self.value} as {self.what} in environment copy {self.copy}"
        return f"{said}, beyond {LARGEST_NUMBER:g}" if math.isfinite(self.value) else said


class OnlyBadNumbers(RuntimeError):
    """A copy of an environment gave MOST_IN_A_ROW episodes in a row that were dropped; `last` is why the last was."""

    def __init__(self, last: BadNumber) -> None:
        super().__init__(f"bad numbers in {MOST_IN_A_ROW} episodes in a row, at last: {last}")
        self.last = last


class Door:
    """Looks at every step of the copies of one task.

    Args:
        task: its index in the run.
        first_copy: the number of the first copy over all actors.
        found: where every bad number that costs an episode is put.
    """

    def __init__(self, task: int, environment: Environment, first_copy: int, found: deque[BadNumber]) -> None:
        self.task = task
        self.environment = environment
        self.first_copy = first_copy
        self.found = found
        self.in_a_row = np.zeros(environment.copies, np.int64)  # dropped episodes of each copy

    def check(self, step: Step) -> tuple[Step, np.ndarray]:
        """The step, and the copies whose episode is to be dropped, bad transition and all.

        These have been reset, so `next_inputs` are sound; their episode is shown as one that goes on. Raises
        OnlyBadNumbers.
        """
        ended = step.next_inputs is not step.observations
        if all_numbers(step.rewards, step.observations) and (not ended or all_numbers(step.next_inputs)):
            if ended:
                self.in_a_row[step.terminated | step.truncated] = 0
            return step, NONE
        over = step.terminated | step.truncated
        dropped = ~sound(step)
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
        """What to act on, (copies, *observation): `inputs`, with copies `again` (copies,) bool reset, and with those
        that begin with a bad number reset until they do not. Raises OnlyBadNumbers."""
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
    """(copies,) bool: those whose reward and observation can be learned from."""
    return np.asarray(are_numbers(step.rewards) & sound_rows(step.observations))


def sound_rows(values: np.ndarray) -> np.ndarray:
    """(rows,) bool of (rows, *shape): those in which all can be learned from."""
    return np.asarray(are_numbers(values).reshape(len(values), -1).all(axis=1))
