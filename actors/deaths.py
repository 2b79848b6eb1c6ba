"""Asks Ray whether a call to a process has ended, and why the process died."""

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

# Errors of a call to a dead process. It is OutOfMemoryError if Ray's memory monitor has killed the process.
DEAD = (RayActorError, OutOfMemoryError)
NODE_DIED = "its node has died"  # in Ray's message for a process that died with its node: this has no error class
MOST_DEATHS_IN_A_ROW = 3


def cause_of(error: Exception) -> Cause:
    """Return why a call ended with this error: its process died, the call failed, or an installation failed."""
    if NODE_DIED in str(error):
        return Cause.NODE_LOST
    if isinstance(error, ActorUnavailableError):
        return Cause.OUT_OF_REACH
    # If the operating system kills a process for memory, Ray knows only that it died.
    if isinstance(error, OutOfMemoryError):
        return Cause.OUT_OF_MEMORY
    if isinstance(error, RayTaskError):
        return Cause.BAD_NUMBERS if isinstance(error.cause, OnlyBadNumbers) else Cause.RAISED
    return Cause.RAISED if isinstance(error, RuntimeEnvSetupError) else Cause.DIED


def answered(reference: ray.ObjectRef) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


def ready_among(references: list[ray.ObjectRef]) -> set[ray.ObjectRef]:
    """Return the references that are answered, with one call to Ray for all of them."""
    return set(ray.wait(references, num_returns=len(references), timeout=0)[0]) if references else set()
