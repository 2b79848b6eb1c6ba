"""A stop that was asked for, and how long what is under way may still take."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

# A stop is obeyed within a minute. For so many seconds after it was asked for each of these is waited for at most; what
# is left of the minute is for Ray to end and the report to be written.
PARTS_S = 20.0  # parts that answer, or come back
EVALUATION_S = 30.0  # evaluations under way
CHECKPOINT_S = 40.0  # the last checkpoint, unless its files are growing


class Stopped(Exception):
    """What was waited for has not come in the time that a stop leaves; the message says what."""


class Stop(threading.Event):
    """Set when a stop is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_at = math.inf

    def set(self) -> None:
        self.asked_at = min(self.asked_at, time.monotonic())
        super().set()

    def left(self, seconds: float) -> float:
        """What is left of so many seconds since it was asked for, 0 at least; for ever before."""
        return max(0.0, self.asked_at + seconds - time.monotonic())


def do_within(seconds: float, what: Callable[[], object]) -> None:
    """Do something that may hang; what takes longer is left to itself, and ends with the process."""
    thread = threading.Thread(target=what, daemon=True)
    thread.start()
    thread.join(seconds)
