"""Passes policies from the learner to the actors. Only the newest version is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np


class PolicyMessage(NamedTuple):
    """A published policy. `version` counts learner updates; `layout` names consecutive pieces of `parameters`."""

    version: int
    published_at: float  # time.monotonic() of this process; other processes are sent its age
    layout: tuple[tuple[str, tuple[int, ...]], ...]
    parameters: np.ndarray  # (n,) float32


class PolicySource(Protocol):
    """A source of policies for an actor. Neither method waits."""

    def ask(self, version: int) -> None:
        """Ask for the newest policy if its version differs from `version`."""

    def poll(self) -> PolicyMessage | None:
        """Return the requested policy, once, when it has arrived; else, or if there is no newer one, None."""


class PolicyStore:
    """Holds the newest policy. Thread-safe.

    Args:
        box: function from a message to the object to keep. Across processes it is `ray.put`: a version is then stored
            once, is owned by the store, and outlives a learner that dies.
    """

    def __init__(self, box: Callable[[PolicyMessage], Any] = lambda message: message) -> None:
        self.box = box
        self.lock = threading.Lock()
        self.version = -1
        self.published_at = 0.0
        self.boxed: Any = None
        self.asked: list[Any] = []

    def put(self, message: PolicyMessage, age_s: float = 0.0) -> None:
        """Replace the policy by this one, published `age_s` seconds ago (an age, since hosts share no clock)."""
        published_at, boxed = time.monotonic() - age_s, self.box(message)
        with self.lock:
            self.version, self.published_at, self.boxed = message.version, published_at, boxed

    def newest(self, version: int) -> list[Any]:
        """Return [boxed message, its age in seconds], or [] when there is none or its version is `version`. Ray does
        not resolve a reference inside a list."""
        with self.lock:
            none = self.boxed is None or self.version == version
            return [] if none else [self.boxed, time.monotonic() - self.published_at]

    def ask(self, version: int) -> None:
        """Implement PolicySource within one process, with the default box."""
        self.asked = self.newest(version)[:1]

    def poll(self) -> PolicyMessage | None:
        return self.asked.pop() if self.asked else None
