"""An environment that remembers how it got where it is, so that a lock-step run can be resumed exactly.

Environment libraries cannot save a copy's state, but given its seed, the number of its resets, what it drew from at the
last one and the actions since, a fresh copy can be brought to the very same state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from actors.environments import Environment, Step


class Mark(NamedTuple):
    """A place to go back to. Of each copy: resets, what it drew from at the last, and the actions with their number."""

    resets: list[int]
    begun: list[Any]
    actions: list[tuple[list[np.ndarray], int]]


class RecordedEnvironment:
    """Wraps freshly made copies; with a saved `state`, `reset` leads them back to where that was taken."""

    def __init__(self, environment: Environment, state: dict[str, Any] | None = None) -> None:
        self.environment = environment
        self.task = environment.task
        self.copies = environment.copies
        self.scale = environment.scale
        self.resets = [0] * self.copies
        self.actions: list[list[np.ndarray]] = [[] for _ in range(self.copies)]
        self.saved = state
        self.led_from: list[Any] | None = None  # after `back_to`

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
        """Where it is now, for `back_to`."""
        return Mark(list(self.resets), self.begun(), [(taken, len(taken)) for taken in self.actions])

    def back_to(self, mark: Mark) -> None:
        """Forget what came after the mark: `state` then leads another environment back there."""
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
