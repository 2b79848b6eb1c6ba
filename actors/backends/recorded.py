"""An environment that records how it reached its state, so that a lock-step run can be resumed exactly.

Environment libraries cannot save a copy's state. But a fresh copy reaches the same state from its seed, the number of
its resets, the states of its random generators before the last reset, and the actions since.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from actors.environments import Environment, Step


class Mark(NamedTuple):
    """A point to go back to. For each copy: resets, generator states before the last reset, and actions with their
    number."""

    resets: list[int]
    begun: list[Any]
    actions: list[tuple[list[np.ndarray], int]]


class RecordedEnvironment:
    """Wraps freshly made copies. With a saved `state`, `reset` brings them to the state that it describes."""

    def __init__(self, environment: Environment, state: dict[str, Any] | None = None) -> None:
        self.environment = environment
        self.task = environment.task
        self.copies = environment.copies
        self.scale = environment.scale
        self.resets = [0] * self.copies
        self.actions: list[list[np.ndarray]] = [[] for _ in range(self.copies)]
        self.saved = state
        self.led_from: list[Any] | None = None  # set by `back_to`

    def reset(self) -> np.ndarray:
        if self.saved is None:
            self.resets = [1] * self.copies
            return self.environment.reset()
        self.resets = list(self.saved["resets"])
        self.actions = [list(taken) for taken in self.saved["actions"]]
        return self.fast_forward(self.resets, self.saved["actions"], self.saved.get("begun", ()))

    def send(self, actions: np.ndarray) -> None:
        for taken, action in zip(self.actions, actions, strict=True):
            taken.append(action.copy())
        self.environment.send(actions)

    def recv(self) -> Step:
        step = self.environment.recv()
        self._begun(np.flatnonzero(step.terminated | step.truncated))
        return step

    def _begun(self, copies: np.ndarray) -> None:
        """Note that these copies were reset."""
        for copy in copies:
            self.resets[copy] += 1
            self.actions[copy] = []

    def restart(self, copies: np.ndarray) -> np.ndarray:
        self._begun(copies)
        return self.environment.restart(copies)

    def mark(self) -> Mark:
        """Return the present point, for `back_to`."""
        return Mark(list(self.resets), self.begun(), [(taken, len(taken)) for taken in self.actions])

    def back_to(self, mark: Mark) -> None:
        """Forget all records after the mark, so that `state` brings another environment to the mark."""
        self.led_from = mark.begun
        self.resets, self.actions = list(mark.resets), [taken[:length] for taken, length in mark.actions]

    def fast_forward(
        self, resets: Sequence[int], actions: Sequence[np.ndarray], begun: Sequence[Any] = ()
    ) -> np.ndarray:
        return self.environment.fast_forward(resets, actions, begun)

    def begun(self) -> list[Any]:
        return self.environment.begun() if self.led_from is None else self.led_from

    def state(self) -> dict[str, Any]:
        empty = np.zeros((0, self.task.action_size), np.float32)
        return {
            "resets": list(self.resets),
            "begun": self.begun(),
            "actions": [np.stack(taken) if taken else empty for taken in self.actions],
        }

    def close(self) -> None:
        self.environment.close()
