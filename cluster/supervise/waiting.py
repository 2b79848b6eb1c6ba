"""Wait for answers of parts, with a limit: a part may never answer, and a stop may be asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence

import ray

from cluster.run.stop import Stop

LOOK_S = 0.25  # longest delay until a stop is noticed
LEAST_S = 2.0  # least time to wait for an answer, even if earlier waits have used up the time after a stop


def all_answer(references: Sequence[ray.ObjectRef], timeout: float, stop: Stop, after_stop: float) -> bool:
    """Wait for all answers or failures. Return False after `timeout` seconds, or `after_stop` seconds after a stop."""
    began = time.monotonic()
    while references:
        left = began + timeout - time.monotonic()
        found, _ = ray.wait(list(references), num_returns=len(references), timeout=max(0.0, min(left, LOOK_S)))
        if len(found) == len(references):
            return True
        if left <= 0.0 or is_late(began, stop, after_stop):
            return False
    return True


def is_late(began: float, stop: Stop, after_stop: float) -> bool:
    """Whether a wait that began at `began` is over: `after_stop` seconds after a stop, but not before LEAST_S."""
    return stop.left(after_stop) <= 0.0 and time.monotonic() - began > LEAST_S
