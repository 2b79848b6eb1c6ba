"""A requested stop of a run, and how long the work under way may still take."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

# A run stops within a minute of the request. It waits for each of these until this many seconds after the request.
# The rest of the minute is for Ray to end and for the report to be written.
PARTS_S = 20.0  # parts that answer, or come back
EVALUATION_S = 30.0  # evaluations under way
CHECKPOINT_S = 40.0  # the last checkpoint, unless its files are growing


class Stopped(Exception):
    """Something was not finished in the time that a stop leaves; the message says what it was."""


class Stop(threading.Event):
    """An event that is set when a stop is requested."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_at = math.inf

    def set(self) -> None:
        self.asked_at = min(self.asked_at, time.monotonic())
        super().set()

    def left(self, seconds: float) -> float:
        """Return what is left of these seconds since the request, at least 0; infinity before a request."""
        return max(0.0, self.asked_at + seconds - time.monotonic())


def do_within(seconds: float, what: Callable[[], object]) -> None:
    """Call a function that may hang, in a thread. If it takes longer, leave it: the thread ends with the process."""
    thread = threading.Thread(target=what, daemon=True)
    thread.start()
    thread.join(seconds)
