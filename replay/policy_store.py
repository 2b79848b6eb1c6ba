"""The way back: policies from the learner to the actors, newest only, by version."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np


class PolicyMessage(NamedTuple):
    """A published policy. `version` counts learner updates; `layout` names consecutive pieces of `parameters`."""

    version: int
    published_at: float  # time.monotonic() in the process that has it: what crosses to another is its age
    layout: tuple[tuple[str, tuple[int, ...]], ...]
    parameters: np.ndarray  # (n,) float32


class PolicySource(Protocol):
    """Where an actor gets its policies. Neither method waits."""

    def ask(self, version: int) -> None:
        """Ask for the newest policy if its version differs from `version`."""

    def poll(self) -> PolicyMessage | None:
        """What was asked for, once it has come; None before, after, and when there is nothing newer."""


class PolicyStore:
    """Holds the newest policy. Thread-safe.

    Args:
        box: what to keep instead of the message; across processes `ray.put`, so that a version is stored once, is owned
            by the store, and outlives a learner that dies.
    """

    def __init__(self, box: Callable[[PolicyMessage], Any] = lambda message: message) -> None:
        self.box = box
        self.lock = threading.Lock()
        self.version = -1
        self.published_at = 0.0
        self.boxed: Any = None
        self.asked: list[Any] = []

    def put(self, message: PolicyMessage, age_s: float = 0.0) -> None:
        """Hold this one from now on. It is `age_s` seconds old: hosts have no clock in common."""
        published_at, boxed = time.monotonic() - age_s, self.box(message)
        with self.lock:
            self.version, self.published_at, self.boxed = message.version, published_at, boxed

    def newest(self, version: int) -> list[Any]:
        """[boxed message, its age in seconds], or [] when there is none or it is `version`. Inside a list a reference
        is not resolved."""
        with self.lock:
            none = self.boxed is None or self.version == version
            return [] if none else [self.boxed, time.monotonic() - self.published_at]

    def ask(self, version: int) -> None:
        """PolicySource for one process, with the default box."""
        self.asked = self.newest(version)[:1]

    def poll(self) -> PolicyMessage | None:
        return self.asked.pop() if self.asked else None
