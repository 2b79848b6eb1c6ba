"""Replay shards of a distributed run as the coordinator handles them: start, hear reports, notice deaths."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from actors.causes import Cause
from actors.deaths import MOST_DEATHS_IN_A_ROW, answered, cause_of
from cluster.backend.parts import Parts
from cluster.errors import RunFailed
from cluster.run.stop import CHECKPOINT_S, PARTS_S, Stop, Stopped
from cluster.supervise.waiting import all_answer, is_late
from dashboards.events import ShardBack, ShardDied
from replay.process import GONE, RayShard, start_shard
from replay.shard import ShardSpec
from replay.stats import ShardStats

# A shard that is away for longer ends the run: its node may be lost, and no other node may have room.
MOST_ABSENCE_S = 600.0
CLOSE_S = 30.0


@dataclass
class Seat:
    """Place of one shard, with its current process and its last stats."""

    spec: ShardSpec
    handle: RayShard
    asked: ray.ObjectRef | None = None
    asked_at: float = 0.0
    absent_since: float | None = None
    cause: Cause = Cause.DIED  # cause of its last death
    deaths_in_a_row: int = 0  # deaths without progress in between
    stats: ShardStats | None = None
    restored: int | None = None  # inserts that a new process had restored, before it was told the earlier count
    answers: int = 0  # number of answers that updated `stats`


ShardEvent = ShardDied | ShardBack


class ShardGroup:
    """Shards of `specs`, spread over the nodes for replay. Living shards are taken over; the others are started.

    `known` holds their last stats from an earlier coordinator.
    """

    def __init__(self, specs: Sequence[ShardSpec], parts: Parts, known: Sequence[ShardStats] = ()) -> None:
        nodes = parts.nodes("replay")
        self.seats = []
        for spec in specs:
            options = parts.place("replay") | parts.named(f"shard-{spec.index}") | {"get_if_exists": True}
            options.pop("scheduling_strategy", None)  # start_shard names the node of each shard
            handle = RayShard(start_shard(spec, nodes[spec.index % len(nodes)], **options))
            self.seats.append(Seat(spec, handle, stats=known[spec.index] if known else None))

    @property
    def handles(self) -> list[RayShard]:
        return [seat.handle for seat in self.seats]

    def fresh(self, stop: Stop, after_stop: float = PARTS_S) -> list[ShardEvent]:
        """Update `stats` now; wait for shards that are away. Return the events of `poll` meanwhile.

        Raises Stopped if a shard is still away `after_stop` seconds after a stop.
        """
        events: list[ShardEvent] = []
        began = time.monotonic()
        # An answer already in flight may be older than this call: wait for the next.
        wanted = [(seat, seat.answers + (1 if seat.asked is None else 2)) for seat in self.seats]
        while missing := [seat.spec.index for seat, number in wanted if seat.answers < number]:
            if is_late(began, stop, after_stop):
                raise Stopped(f"replay shard {missing[0]} does not answer")
            events += self.poll()
            ray.wait([seat.asked for seat in self.seats if seat.asked is not None], timeout=0.05)
        return events

    @property
    def stats(self) -> list[ShardStats]:
        """Last stats of each shard; call `fresh` once before."""
        return [seat.stats for seat in self.seats if seat.stats is not None]

    @property
    def away(self) -> bool:
        """Whether any shard is known to be away."""
        return any(seat.absent_since is not None for seat in self.seats)

    def poll(self) -> list[ShardEvent]:
        """Take in the answers that have come. Return events. Never waits. Raises RunFailed if a shard stays away."""
        return [event for seat in self.seats for event in self._poll(seat)]

    def _poll(self, seat: Seat) -> list[ShardEvent]:
        if seat.absent_since is not None and time.monotonic() - seat.absent_since > MOST_ABSENCE_S:
            raise RunFailed(f"replay shard {seat.spec.index} has been away for {MOST_ABSENCE_S:.0f} s", seat.cause)
        if seat.asked is None:
            self._ask(seat, seat.handle.actor.stats.remote())
            return []
        if not answered(seat.asked):
            if time.monotonic() - seat.asked_at > MOST_ABSENCE_S:
                silent = f"replay shard {seat.spec.index} has not answered for {MOST_ABSENCE_S:.0f} s"
                raise RunFailed(silent, Cause.HUNG)
            return []
        asked, seat.asked = seat.asked, None
        try:
            return self._told(seat, ray.get(asked))
        except GONE as error:
            return self._away(seat, error)

    def _ask(self, seat: Seat, answer: ray.ObjectRef) -> None:
        seat.asked, seat.asked_at = answer, time.monotonic()

    def _away(self, seat: Seat, error: Exception) -> list[ShardEvent]:
        if is_final(error):
            raise RunFailed(f"replay shard {seat.spec.index} cannot go on: {error}", cause_of(error)) from error
        if seat.absent_since is not None:
            return []
        seat.absent_since = time.monotonic()
        return [self._death(seat, cause_of(error), str(error))]

    def _death(self, seat: Seat, cause: Cause, reason: str) -> ShardDied:
        seat.cause = cause
        seat.deaths_in_a_row += 1
        if seat.deaths_in_a_row >= MOST_DEATHS_IN_A_ROW:
            times = f"{seat.deaths_in_a_row} times without getting on"
            raise RunFailed(f"replay shard {seat.spec.index} died {times}: {reason}", cause)
        return ShardDied(reason=reason, cause=cause, shard=seat.spec.index)

    def _told(self, seat: Seat, stats: ShardStats) -> list[ShardEvent]:
        """Take in a shard's stats. First tell a new process the insert counts of its predecessor."""
        before = seat.stats
        if before is None and not stats.caught_up:  # its predecessor died before its first answer
            self._ask(seat, seat.handle.actor.catch_up.remote([0] * len(stats.inserts_by_task)))
            return []
        if before is None or stats.token == before.token:
            if before is not None and progress(stats) > progress(before):
                seat.deaths_in_a_row = 0
            self._take(seat, stats)
            return []
        if not stats.caught_up:
            seat.restored = sum(stats.inserts_by_task)
            self._ask(seat, seat.handle.actor.catch_up.remote(before.inserts_by_task))
            return []
        # Only the successor's token shows a death that was over quickly.
        events: list[ShardEvent] = (
            [] if seat.absent_since is not None else [self._death(seat, Cause.DIED, "another process answers")]
        )
        # Compare inserts, not contents: a full shard is full again, but of older transitions.
        restored = sum(stats.inserts_by_task) if seat.restored is None else seat.restored
        lost = min(sum(before.inserts_by_task) - restored, sum(before.transitions_by_task))
        seat.restored = None
        back = ShardBack(
            reason=stats.problem,
            shard=seat.spec.index,
            node=stats.node,
            content=stats.content,
            lost=max(0, lost),
            seconds=0.0 if seat.absent_since is None else time.monotonic() - seat.absent_since,
        )
        self._take(seat, stats)
        return [*events, back]

    def _take(self, seat: Seat, stats: ShardStats) -> None:
        seat.stats, seat.absent_since = stats, None
        seat.answers += 1

    def save(self, snapshot: str) -> list[ray.ObjectRef]:
        """Ask every shard to write its part of a snapshot. Each answer is (new bytes, seconds)."""
        return [seat.handle.actor.save_timed.remote(snapshot) for seat in self.seats]

    def close(self, stop: Stop) -> None:
        """Remove the files of all shards: a checkpoint holds everything. Files of a shard that is away stay."""
        all_answer([seat.handle.actor.close.remote(True) for seat in self.seats], CLOSE_S, stop, CHECKPOINT_S)


def give_up_replay(parts: Parts) -> None:
    """Make the living shards of a run that cannot be resumed remove their files."""
    living = [name for name in parts.alive() if name.startswith("shard-")]
    for closed in [parts.find(name).close.remote(True) for name in living]:
        with suppress(RayError):
            ray.get(closed, timeout=CLOSE_S)


def progress(stats: ShardStats) -> int:
    return sum(stats.inserts_by_task) + stats.limiter.samples


def is_final(error: Exception) -> bool:
    """Whether Ray will not restart the shard, for example because it cannot be made."""
    return isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError)
