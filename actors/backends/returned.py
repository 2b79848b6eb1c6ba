"""Reads the return values of an environment of gymnasium's interface: values with a clear meaning are accepted.

Others raise BadEnvironment. A missing value does not: it is passed on as NaN, and `door` drops its episode.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from actors.benchmarks.benchmark import Task

SUCCESS_KEYS = ("success", "is_success")
NUMBERS = "fiub"  # kinds of numeric dtypes
LARGEST = float(np.finfo(np.float32).max)
PLAIN = (float, int, np.floating, np.integer)
TOLD: set[str] = set()  # tasks for which this process has printed that their success is unknown


class BadEnvironment(RuntimeError):
    """An environment breaks its interface. The message is one sentence with the task's name."""


class Exited(RuntimeError):
    """An environment called sys.exit. This must not end the process, nor a run without a message."""

    def __init__(self, name: str, exit_: SystemExit) -> None:
        super().__init__(f"{name} called sys.exit({'' if exit_.code is None else repr(exit_.code)})")


class Astray(BadEnvironment):
    """Replayed actions did not lead an environment back to its saved state: the run can only go on distributed."""


class CopyStep(NamedTuple):
    """Results of one step of one copy."""

    observation: np.ndarray  # (size,) float32, privileged numbers included
    reward: float
    terminated: bool
    truncated: bool
    success: bool


class Returned:
    """Reads the return values of one task. `space` is the observation space: a Box, or a Dict of Boxes by key."""

    def __init__(self, task: Task, space: Any) -> None:
        self.task = task
        self.begun = False
        self.single = task.observation_keys[0][0] == ""
        self.keys = {""} if self.single else set(space.spaces)
        # If a task's sizes are in a table of ours, the library's space may differ from the shapes that it returns.
        self.shapes = {key: space.shape if self.single else space[key].shape for key, _ in task.observation_keys}
        self.shapes |= {key: (size,) for key, size in task.observation_keys if math.prod(self.shapes[key]) != size}

    def reset(self, found: Any) -> np.ndarray:
        """Return the observation (size,) float32 from the result of `reset`."""
        if not (isinstance(found, tuple) and len(found) == 2):
            raise BadEnvironment(f"{self.task.name}: its reset returned {brief(found)}, not (observation, info)")
        if found[0] is None and not self.begun:  # later, None only costs an episode
            raise BadEnvironment(f"{self.task.name}: its reset returned None, not (observation, info)")
        self.begun = True
        return self.observation(found[0])

    def step(self, found: Any) -> CopyStep:
        if not (isinstance(found, tuple) and len(found) == 5):
            raise BadEnvironment(
                f"{self.task.name}: its step returned {brief(found)}, not (observation, reward, terminated, truncated, "
                "info)"
            )
        observed, reward, terminated, truncated, info = found
        return CopyStep(
            self.observation(observed),
            self.reward(reward),
            self.flag("terminated", terminated),
            self.flag("truncated", truncated),
            self.success(info),
        )

    def observation(self, observed: Any) -> np.ndarray:
        """Return (size,) float32, with the parts of a dictionary in the order of the task's keys."""
        if self.single:
            return self._part("", observed)
        if not isinstance(observed, Mapping):
            raise BadEnvironment(
                f"{self.task.name}: it observed {brief(observed)}, not a dictionary of {', '.join(sorted(self.keys))}"
            )
        if observed.keys() != self.keys:
            raise BadEnvironment(
                f"{self.task.name}: it observed {', '.join(map(str, observed)) or 'nothing'}, and its "
                f"observation_space names {', '.join(sorted(self.keys))}"
            )
        return np.concatenate([self._part(key, observed[key]) for key, _ in self.task.observation_keys])

    def _part(self, key: str, observed: Any) -> np.ndarray:
        """Return one array, flattened. Other shapes are accepted if the order of their numbers is clear: (3, 1) or a
        list of 3 for (3,), and (4,) for (2, 2), but not (2, 3) for (3, 2)."""
        shape = self.shapes[key]
        size = math.prod(shape)
        if observed is None:
            return np.full(size, np.nan, np.float32)
        what = f"{self.task.name}: it observed {f'for {key} ' if key else ''}"
        array = self._numbers(observed, what)
        if array.shape != shape and not (array.size == size and thin(array.shape) in (thin(shape), (size,), ())):
            raise BadEnvironment(f"{what}an array of shape {array.shape}, and its observation_space has {shape}")
        with np.errstate(over="ignore"):  # warnings may have been turned into errors
            return array.astype(np.float32).ravel()

    def _numbers(self, value: Any, what: str) -> np.ndarray:
        """Return an array of numbers, with NaN for None. Raises BadEnvironment for other values."""
        try:
            array = np.asarray(value)
            if array.dtype.kind == "O":
                array = floats(array)
            if array.dtype.kind in NUMBERS:
                return array
        except (TypeError, ValueError, OverflowError, RuntimeError):  # ragged, of strings, on a GPU
            pass
        raise BadEnvironment(f"{what}{brief(value)}, which is not of numbers")

    def reward(self, value: Any) -> float:
        """Return the reward. An array that holds one number is accepted too."""
        if isinstance(value, PLAIN):
            return as_float(value)
        if value is None:
            return math.nan
        what = f"{self.task.name}: its reward is "
        array = self._numbers(value, what)
        if array.size != 1:
            raise BadEnvironment(f"{what}an array of shape {array.shape}, and a step has one reward")
        return as_float(array.item())

    def flag(self, name: str, value: Any) -> bool:
        """Return True or False. 1, 0 and an array that holds one of these values are accepted too."""
        if isinstance(value, (bool, np.bool)):
            return bool(value)
        what = f"{self.task.name}: {name} is "
        array = self._numbers(value, what) if value is not None else np.empty(0)
        if array.size != 1 or array.item() not in (0, 1):
            raise BadEnvironment(f"{what}{brief(value)}, neither True nor False")
        return bool(array.item())

    def success(self, info: Any) -> bool:
        """Whether any of SUCCESS_KEYS in the step's info is true or positive; for arrays, whether any part is."""
        if info is None:
            return False
        if not isinstance(info, Mapping):
            raise BadEnvironment(f"{self.task.name}: its info is {brief(info)}, not a dictionary")
        return any(self._is_success(key, info[key]) for key in SUCCESS_KEYS if key in info)

    def _is_success(self, key: str, value: Any) -> bool:
        if value is None or isinstance(value, (bool, np.bool)):
            return bool(value)
        try:
            return bool((self._numbers(value, f"{self.task.name}: info[{key!r}] is ") > 0).any())
        except BadEnvironment as error:
            if self.task.name not in TOLD:
                TOLD.add(self.task.name)
                print(f"{error}: its success counts as unknown", file=sys.stderr, flush=True)
            return False


def as_float(value: Any) -> float:
    """Return a value as float; infinite if it is beyond float32's range."""
    try:
        number = float(value)
    except OverflowError:  # an integer of Python
        return math.inf if value > 0 else -math.inf
    return math.copysign(math.inf, number) if abs(number) > LARGEST else number


def floats(array: np.ndarray) -> np.ndarray:
    """Turn an array of objects into float64, with NaN for None and infinity for integers beyond all floats."""
    try:
        return array.astype(np.float64)
    except OverflowError:
        found = [math.nan if value is None else as_float(value) for value in array.flat]
        return np.array(found, np.float64).reshape(array.shape)


def thin(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape without axes of length one, which do not change the order of the numbers."""
    return tuple(length for length in shape if length != 1)


def brief(value: Any) -> str:
    """Describe a value in a few words."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"
