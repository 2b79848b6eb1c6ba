"""Why a part of a run died, in one of a few words. Records and metrics carry these; sentences are for people only."""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """Values are those of the label `cause` of metrics."""

    NODE_LOST = "node lost"
    OUT_OF_REACH = "out of reach"
    OUT_OF_MEMORY = "out of memory"
    HUNG = "hung"
    BAD_NUMBERS = "bad numbers"
    LOSS_NOT_FINITE = "loss not finite"
    RAISED = "raised"
    DIED = "died"  # for a reason that nobody knows
    KILLED = "killed"  # of a coordinator, which another replaces
