"""Waiting for answers of parts that may never come, while a stop may be asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence

import ray

from cluster.run.stop import Stop

LOOK_S = 0.25  # how soon a stop is noticed
LEAST_S = 2.0  # for which every answer is waited for, also when others have taken all the time there was


def all_answer(references: Sequence[ray.ObjectRef], timeout: float, stop: Stop, after_stop: float) -> bool:
    """Whether all are answered, or have failed, within the timeout, and within `after_stop` seconds of a stop."""
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
    """Whether nothing that was begun then is waited for any more."""
    return stop.left(after_stop) <= 0.0 and time.monotonic() - began > LEAST_S
