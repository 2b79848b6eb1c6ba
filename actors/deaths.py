"""What Ray says of processes that are gone: whether a call to one has ended, and why it died."""

from __future__ import annotations

import ray
from ray.exceptions import (
    ActorUnavailableError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from actors.causes import Cause
from actors.door import OnlyBadNumbers

# How a call to a process that is gone ends: the second when Ray's memory monitor has killed it.
DEAD = (RayActorError, OutOfMemoryError)
NODE_DIED = "its node has died"  # in what Ray says of a process that went with its node: it has no class for that
MOST_DEATHS_IN_A_ROW = 3


def cause_of(error: Exception) -> Cause:
    """Why a call ended with this error: its process is gone, or the call itself, or what it had installed, failed."""
    if NODE_DIED in str(error):
        return Cause.NODE_LOST
    if isinstance(error, ActorUnavailableError):
        return Cause.OUT_OF_REACH
    # Of a process that its own system has killed Ray knows only that it died.
    if isinstance(error, OutOfMemoryError):
        return Cause.OUT_OF_MEMORY
    if isinstance(error, RayTaskError):
        return Cause.BAD_NUMBERS if isinstance(error.cause, OnlyBadNumbers) else Cause.RAISED
    return Cause.RAISED if isinstance(error, RuntimeEnvSetupError) else Cause.DIED


def answered(reference: ray.ObjectRef) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


def ready_among(references: list[ray.ObjectRef]) -> set[ray.ObjectRef]:
    """Those that are answered: one question for all of them."""
    return set(ray.wait(references, num_returns=len(references), timeout=0)[0]) if references else set()
