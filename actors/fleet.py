"""Keeps the desired number of actor processes alive and collects what they report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import psutil
import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayTaskError, RuntimeEnvSetupError

from actors.actor import ActorSpec, Assignment
from actors.backends.returned import BadEnvironment
from actors.causes import Cause
from actors.deaths import DEAD, MOST_DEATHS_IN_A_ROW, answered, cause_of, ready_among
from actors.door import MOST_IN_A_ROW, BadNumber, OnlyBadNumbers
from actors.reports import ActorReport, FleetCounts

REPORTS_PER_S = 100  # of all actors together: more of them are asked less often, so that hundreds cost no more
LEAVE_TIMEOUT_S = 60.0  # for an actor that leaves to have its last push taken
BUILD_TIMEOUT_S = 900.0  # for one to make its environments


class Death(NamedTuple):
    """An actor process that died, or was of no more use, and was replaced."""

    actor: str
    incarnation: int
    cause: Cause
    reason: str


class FleetFailed(Exception):
    """The fleet cannot go on: an actor dies again and again, or a task gives nothing to learn from."""

    def __init__(self, reason: str, cause: Cause) -> None:
        super().__init__(reason)
        self.cause = cause


class Poll(NamedTuple):
    """What is new in the fleet since the last look."""

    reports: list[ActorReport]
    deaths: list[Death]
    started: list[tuple[str, int]]  # (actor, incarnation) that began to collect


@dataclass(frozen=True)
class Limits:
    """When an actor of a benchmark is of no more use: what it takes for a step, in seconds, and memory, in bytes."""

    deadline_s: float
    most_bytes: float


class Slot:
    """One place in the fleet: the process that fills it now."""

    def __init__(self, what: Assignment, incarnation: int, handle: ActorHandle, is_new: bool = True) -> None:
        self.what = what
        self.incarnation = incarnation
        self.is_new = is_new
        self.handle = handle
        self.placed: ray.ObjectRef | None = handle.placed.remote()  # until it is answered
        self.ready: ray.ObjectRef | None = handle.build.remote()
        self.begun_at = time.monotonic()
        self.placed_at = 0.0
        self.asked: ray.ObjectRef | None = None
        self.asked_at = 0.0
        self.away_since: float | None = None  # out of reach, and not known to be dead
        self.report: ActorReport | None = None
        self.process: psutil.Process | None = None  # if it is on this node
        self.deaths_in_a_row = 0  # by itself, without having anything for replay in between

    def kill(self) -> None:
        """End the process, also one that is stopped, which does not hear Ray."""
        ray.kill(self.handle)
        if self.process is not None:
            with suppress(psutil.NoSuchProcess):
                self.process.kill()


class Fleet:
    """An actor for each assignment, started by `start(spec)` where spec = `make_spec(assignment, incarnation)`.

    `limits` are by benchmark. Incarnations of every name begin at `incarnation`. `living` are actors that an earlier
    fleet has started, by assignment, with their incarnations: they go on as they are.
    """

    def __init__(
        self,
        assignments: Sequence[Assignment],
        incarnation: int,
        make_spec: Callable[[Assignment, int], ActorSpec],
        start: Callable[[ActorSpec], ActorHandle],
        limits: dict[str, Limits],
        living: dict[Assignment, tuple[int, ActorHandle]] | None = None,
    ) -> None:
        self.make_spec = make_spec
        self.start_actor = start
        self.limits = limits
        self.collecting = False
        self.first_incarnation = incarnation
        self.lives: dict[str, int] = {}  # begun, by name
        self.restarts = dict.fromkeys(limits, 0)
        self.spoilt: Counter[int] = Counter()  # by task, actors that it ended, since an episode of it that was sound
        self.outgoing: list[Slot] = []  # who collect until others do what they did
        self.leaving: list[tuple[Slot, ray.ObjectRef, float]] = []
        found = living or {}
        self.slots = [Slot(what, *found[what], False) if what in found else self._begin(what) for what in assignments]

    def _begin(self, what: Assignment) -> Slot:
        """No name ever has an incarnation twice: its writer's pushes would be taken for those of the one before."""
        incarnation = self.first_incarnation + self.lives.get(what.name, 0)
        self.lives[what.name] = self.lives.get(what.name, 0) + 1
        return Slot(what, incarnation, self.start_actor(self.make_spec(what, incarnation)))

    def collect(self) -> None:
        """Let actors collect: those that are ready now, and every other as soon as it is."""
        self.collecting = True

    def resize(self, assignments: Sequence[Assignment]) -> None:
        """Have these from now on. Who does the same as before goes on; others push what they have and leave.

        Where there are to be more, those of before stay until others do what they did: perhaps not all of the new ones
        find room. Where there are to be fewer, they go first, to make room.
        """
        wanted = set(assignments)
        counts, before = (Counter(what.benchmark for what in found) for found in (assignments, self.assignments))
        for slot in self.slots:
            if slot.what not in wanted:
                stays = counts[slot.what.benchmark] > before[slot.what.benchmark]
                (self.outgoing.append if stays and slot.ready is None else self._leave)(slot)
        for slot in list(self.outgoing):
            if counts[slot.what.benchmark] < before[slot.what.benchmark]:
                self.outgoing.remove(slot)
                self._leave(slot)
        kept = {slot.what: slot for slot in self.slots if slot.what in wanted}
        self.slots = [kept.get(what) or self._begin(what) for what in assignments]

    @property
    def assignments(self) -> list[Assignment]:
        return [slot.what for slot in self.slots]

    def _leave(self, slot: Slot) -> None:
        if slot.ready is not None:  # it has nothing
            slot.kill()
        else:
            self.leaving.append((slot, slot.handle.leave.remote(), time.monotonic()))

    def poll(self) -> Poll:
        """Look at every actor; one that died, hangs, leaks or failed is replaced at once. Never waits.

        Raises FleetFailed when one dies again and again, its nodes alive, and has nothing for replay, and
        BadEnvironment at once.
        """
        news = Poll([], [], [])
        everyone = [*self.slots, *self.outgoing]
        answers = ready_among([slot.asked for slot in everyone if slot.asked is not None])
        now = time.monotonic()
        interval = len(everyone) / REPORTS_PER_S
        for slot in everyone:
            try:
                if slot.ready is not None:
                    self._begin_when_ready(slot, news)
                elif slot.asked is None:
                    if now - slot.asked_at >= interval:
                        slot.asked, slot.asked_at = slot.handle.report.remote(), now
                elif slot.asked in answers:
                    self._hear(slot, news)
                elif time.monotonic() - slot.asked_at > self.limits[slot.what.benchmark].deadline_s:
                    self._replace(slot, Cause.HUNG, "it has not answered for its deadline", news)
            except ActorUnavailableError as error:
                self._out_of_reach(slot, error, news)
            # The second when its environment, or our code, raised, the third when its packages could not be installed.
            except (*DEAD, RayTaskError, RuntimeEnvSetupError) as error:
                if isinstance(error, RayTaskError) and isinstance(error.cause, BadEnvironment):
                    raise error.cause from None  # another actor would meet the same
                self._replace(slot, cause_of(error), str(error), news)
        for slot in list(self.outgoing):
            unserved = set(slot.what.tasks) - self._served(self.slots)
            missing = [one for one in self.slots if one.ready is not None and unserved.intersection(one.what.tasks)]
            if len(missing) <= 1:  # for that one it makes room
                self.outgoing.remove(slot)
                self._leave(slot)
        for leaving in list(self.leaving):
            slot, gone, since = leaving
            if answered(gone) or time.monotonic() - since > LEAVE_TIMEOUT_S:
                slot.kill()
                self.leaving.remove(leaving)
        return news

    @staticmethod
    def _served(slots: Sequence[Slot]) -> set[int]:
        """Tasks that somebody collects."""
        return {task for slot in slots if slot.ready is None for task in slot.what.tasks}

    def _hear(self, slot: Slot, news: Poll) -> None:
        asked, slot.asked = slot.asked, None
        report: ActorReport = ray.get(asked)
        slot.report, slot.away_since = report, None
        if report.writer.pushes or report.writer.refusals:  # the limiter may have everyone wait
            slot.deaths_in_a_row = 0
        news.reports.append(report)
        for episode in report.episodes:
            self.spoilt.pop(episode.task, None)
        limits = self.limits[slot.what.benchmark]
        if report.only_bad is not None:
            self._spoil(slot, report.only_bad, news)
        elif report.silent_s > limits.deadline_s:
            self._replace(slot, Cause.HUNG, f"it has not made a step for {report.silent_s:.0f} s", news)
        elif report.memory_bytes > limits.most_bytes:
            grown = f"it has grown to {report.memory_bytes:,} bytes, above {limits.most_bytes:,.0f}"
            self._replace(slot, Cause.OUT_OF_MEMORY, grown, news)

    def _spoil(self, slot: Slot, last: BadNumber, news: Poll) -> None:
        """Replace an actor that a task gives nothing but bad numbers. Raises FleetFailed when it gives nothing else to
        several: all the others would wait for it."""
        self.spoilt[last.task] += 1
        if self.spoilt[last.task] >= MOST_DEATHS_IN_A_ROW:
            raise FleetFailed(
                f"{last.name} gives nothing but bad numbers: {self.spoilt[last.task]} actors dropped {MOST_IN_A_ROW} "
                f"episodes in a row with none that was sound in between, at last since {last}; mend the environment, "
                f"or leave it out of --tasks",
                Cause.BAD_NUMBERS,
            )
        self._replace(slot, Cause.BAD_NUMBERS, f"{OnlyBadNumbers(last)}", news)

    def _begin_when_ready(self, slot: Slot, news: Poll) -> None:
        if slot.placed is not None:
            if answered(slot.placed):
                node, pid = ray.get(slot.placed)
                if node == ray.get_runtime_context().get_node_id():
                    with suppress(psutil.NoSuchProcess):  # it will be missed soon enough
                        slot.process = psutil.Process(pid)
                slot.placed, slot.placed_at, slot.away_since = None, time.monotonic(), None
            elif not slot.is_new and time.monotonic() - slot.begun_at > BUILD_TIMEOUT_S:  # others may wait for room
                silent = f"it has not answered a new coordinator for {BUILD_TIMEOUT_S:.0f} s"
                self._replace(slot, Cause.HUNG, silent, news)
        elif slot.ready is not None and answered(slot.ready):
            ray.get(slot.ready)
            if self.collecting:
                slot.handle.start.remote()
                slot.ready = None
                if slot.is_new:
                    news.started.append((slot.what.name, slot.incarnation))
        elif time.monotonic() - slot.placed_at > BUILD_TIMEOUT_S:
            late = f"its environments were not made within {BUILD_TIMEOUT_S:.0f} s"
            self._replace(slot, Cause.HUNG, late, news)

    def _out_of_reach(self, slot: Slot, error: ActorUnavailableError, news: Poll) -> None:
        """Ask again what it did not answer: it may be there, or Ray is about to say that it died, and whether its node
        did."""
        now = time.monotonic()
        if slot.away_since is None:
            slot.away_since = now
        if now - slot.away_since > self.limits[slot.what.benchmark].deadline_s:
            self._replace(slot, Cause.OUT_OF_REACH, str(error), news)
        elif slot.ready is None:
            slot.asked, slot.asked_at = None, now
        else:
            slot.placed, slot.ready = slot.handle.placed.remote(), slot.handle.build.remote()

    def _replace(self, slot: Slot, cause: Cause, reason: str, news: Poll) -> None:
        """Begin it anew elsewhere. Nodes come and go, spot ones by the dozen: that is no fault of who was on them."""
        news.deaths.append(Death(slot.what.name, slot.incarnation, cause, reason))
        deaths = slot.deaths_in_a_row + (cause is not Cause.NODE_LOST)
        if deaths >= MOST_DEATHS_IN_A_ROW:
            raise FleetFailed(
                f"actor {slot.what.name} died {deaths} times without anything for replay in between, at last: {reason}",
                cause,
            )
        slot.kill()  # it may only have been out of reach
        self.restarts[slot.what.benchmark] += 1
        if slot in self.outgoing:
            self.outgoing.remove(slot)
            return
        self.slots[self.slots.index(slot)] = fresh = self._begin(slot.what)
        fresh.deaths_in_a_row = deaths

    def renew(self) -> None:
        """Have every actor begin anew, as after a death, without counting it as one."""
        for slot in self.outgoing:
            slot.kill()
        self.outgoing = []
        for slot in list(self.slots):
            slot.kill()
            self.slots[self.slots.index(slot)] = self._begin(slot.what)

    @property
    def reports(self) -> list[ActorReport]:
        """The newest report of every living actor that has made one."""
        return [slot.report for slot in [*self.slots, *self.outgoing] if slot.report is not None]

    def reports_of(self, benchmark: str) -> list[ActorReport]:
        """The same, of those of one benchmark that are to stay."""
        return [slot.report for slot in self.slots if slot.what.benchmark == benchmark and slot.report is not None]

    def stats(self) -> dict[str, FleetCounts]:
        """By benchmark: actors that are wanted, that have been placed and collect, that have not, and restarts."""
        found = {}
        for benchmark, restarts in self.restarts.items():
            slots = [slot for slot in self.slots if slot.what.benchmark == benchmark]
            alive = sum(slot.ready is None for slot in slots)
            found[benchmark] = FleetCounts(len(slots), alive, len(slots) - alive, restarts)
        return found

    @property
    def finished(self) -> bool:
        """Whether every actor has met a full budget everywhere. One that has not been placed yet is not missed if all
        that it is to do is done by others."""
        begun = [slot for slot in [*self.slots, *self.outgoing] if slot.ready is None]
        served = self._served(begun)
        if not begun or any(not served.issuperset(slot.what.tasks) for slot in self.slots):
            return False
        return all(slot.report is not None and slot.report.finished for slot in begun)

    @property
    def incarnation(self) -> int:
        """The highest so far: a resumed run begins above it."""
        return self.first_incarnation + max(self.lives.values(), default=0) - 1

    def stop(self) -> list[ray.ObjectRef]:
        """Ask all loops to end, who answer when they have; what they had not pushed is dropped."""
        for slot in [slot for slot in self.slots if slot.ready is not None]:
            slot.kill()  # it has nothing, and is not to begin now
        self.slots = [slot for slot in self.slots if slot.ready is None]
        pending: list[ray.ObjectRef] = [slot.handle.stop.remote() for slot in [*self.slots, *self.outgoing]]
        return pending + [gone for _, gone, _ in self.leaving]
