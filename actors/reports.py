"""Reports of actors and counts of their fleet. Processes send them, and metrics are made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from actors.door import BadNumber
from actors.episodes import Episode
from replay.stats import WriterStats


class ActorReport(NamedTuple):
    """Events since the last report, and counters since the start."""

    episodes: list[Episode]
    iterations: int  # steps of every copy
    transitions: int
    policy_version: int  # -1 while acting at random
    policy_age_s: float  # at the last action: time in which a push waits does not count
    seconds: dict[str, float]  # where the time went: act, step, record, push
    writer: WriterStats
    finished: bool
    silent_s: float = 0.0  # since the loop last did anything, waiting for replay included
    memory_bytes: int = 0  # private memory
    bad: Sequence[BadNumber] = ()  # since the last report; each has cost an episode
    only_bad: BadNumber | None = None  # the last bad number, if a copy gave only those and the actor ended for it


@dataclass(frozen=True)
class FleetCounts:
    """Actors of a benchmark: wanted, collecting, not yet begun, and replaced so far."""

    desired: int
    alive: int
    pending: int
    restarts: int
