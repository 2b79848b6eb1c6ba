"""Causes of the death of a part of a run. Records and metrics use them; reasons in sentences are for people only."""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """Why a part of a run died. The value is that of the label `cause` of metrics."""

    NODE_LOST = "node lost"
    OUT_OF_REACH = "out of reach"
    OUT_OF_MEMORY = "out of memory"
    HUNG = "hung"
    BAD_NUMBERS = "bad numbers"
    LOSS_NOT_FINITE = "loss not finite"
    DEVICE_FAILED = "device failed"  # a GPU, or a connection between GPUs
    RAISED = "raised"
    DIED = "died"  # the reason is unknown
    KILLED = "killed"  # only for a coordinator, which another coordinator replaces
