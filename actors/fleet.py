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

REPORTS_PER_S = 100  # of all actors together: each of many actors is asked less often, so hundreds cost no more
LEAVE_TIMEOUT_S = 60.0  # until replay must have the last push of an actor that leaves
BUILD_TIMEOUT_S = 900.0  # until an actor must have made its environments


class Death(NamedTuple):
    """An actor process that died, or had to be killed, and was replaced."""

    actor: str
    incarnation: int
    cause: Cause
    reason: str


class FleetFailed(Exception):
    """The fleet cannot go on: an actor dies again and again, or a task gives only bad numbers."""

    def __init__(self, reason: str, cause: Cause) -> None:
        super().__init__(reason)
        self.cause = cause


class Poll(NamedTuple):
    """News of the fleet since the last poll."""

    reports: list[ActorReport]
    deaths: list[Death]
    started: list[tuple[str, int]]  # (actor, incarnation) that began to collect


@dataclass(frozen=True)
class Limits:
    """Limits of an actor of a benchmark: seconds without a step, and bytes of memory. Beyond them it is replaced."""

    deadline_s: float
    most_bytes: float


class Slot:
    """One place in the fleet, and the process that fills it now."""

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
        self.away_since: float | None = None  # when it went out of reach; it may still live
        self.report: ActorReport | None = None
        self.process: psutil.Process | None = None  # if it is on this node
        self.deaths_in_a_row = 0  # not together with its node, and without a push for replay in between

    def kill(self) -> None:
        """End the process. A suspended process does not react to Ray, so it is also killed through the system."""
        ray.kill(self.handle)
        if self.process is not None:
            with suppress(psutil.NoSuchProcess):
                self.process.kill()


class Fleet:
    """Actors, one an assignment, each started by `start(spec)` with spec = `make_spec(assignment, incarnation)`.

    `limits` are by benchmark. Incarnations of every name begin at `incarnation`. `living` are actors that an earlier
    fleet has started, by assignment, with their incarnations: they go on unchanged.
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
        self.lives: dict[str, int] = {}  # starts so far, by name
        self.restarts = dict.fromkeys(limits, 0)
        self.spoilt: Counter[int] = Counter()  # by task: actors that its bad numbers ended since its last sound episode
        self.outgoing: list[Slot] = []  # they collect until others have taken over their tasks
        self.leaving: list[tuple[Slot, ray.ObjectRef, float]] = []
        found = living or {}
        self.slots = [Slot(what, *found[what], False) if what in found else self._begin(what) for what in assignments]

    def _begin(self, what: Assignment) -> Slot:
        """Start an actor. No name gets an incarnation twice: replay would take the new writer's pushes for those of
        the earlier writer."""
        incarnation = self.first_incarnation + self.lives.get(what.name, 0)
        self.lives[what.name] = self.lives.get(what.name, 0) + 1
        return Slot(what, incarnation, self.start_actor(self.make_spec(what, incarnation)))

    def collect(self) -> None:
        """Let every actor collect, now or as soon as it is ready."""
        self.collecting = True

    def resize(self, assignments: Sequence[Assignment]) -> None:
        """Change the assignments. An actor that keeps its assignment goes on; others push their rows and leave.

        If a benchmark gets more actors, its old ones stay until others have taken over their tasks: the new ones may
        not all find room. Otherwise the old ones leave first, to make room.
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
        if slot.ready is not None:  # it has collected nothing
            slot.kill()
        else:
            self.leaving.append((slot, slot.handle.leave.remote(), time.monotonic()))

    def poll(self) -> Poll:
        """Check every actor. An actor that died, hangs, leaks or failed is replaced at once. Never waits.

        Raises FleetFailed when an actor dies again and again, not with its node, and pushes nothing in between. Raises
        BadEnvironment at once when an actor does.
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
            # RayTaskError: its environment or our code raised. RuntimeEnvSetupError: packages could not be installed.
            except (*DEAD, RayTaskError, RuntimeEnvSetupError) as error:
                if isinstance(error, RayTaskError) and isinstance(error.cause, BadEnvironment):
                    raise error.cause from None  # another actor would meet the same error
                self._replace(slot, cause_of(error), str(error), news)
        for slot in list(self.outgoing):
            unserved = set(slot.what.tasks) - self._served(self.slots)
            missing = [one for one in self.slots if one.ready is not None and unserved.intersection(one.what.tasks)]
            if len(missing) <= 1:  # it makes room for the last one
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
        """Return the tasks that actors of these slots collect already."""
        return {task for slot in slots if slot.ready is None for task in slot.what.tasks}

    def _hear(self, slot: Slot, news: Poll) -> None:
        asked, slot.asked = slot.asked, None
        report: ActorReport = ray.get(asked)
        slot.report, slot.away_since = report, None
        if report.writer.pushes or report.writer.refusals:  # refusals count too: the limiter may let every actor wait
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
        """Replace an actor that gets only bad numbers from a task. Raises FleetFailed when several actors do: all other
        tasks would wait for this task."""
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
                    with suppress(psutil.NoSuchProcess):  # it is dead: a later call to it fails
                        slot.process = psutil.Process(pid)
                slot.placed, slot.placed_at, slot.away_since = None, time.monotonic(), None
            elif not slot.is_new and time.monotonic() - slot.begun_at > BUILD_TIMEOUT_S:  # new ones may wait for room
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
        """Repeat the calls that the actor did not answer. It may live, or Ray will soon say that it, or its node,
        died."""
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
        """Start the actor anew in a new process. A death with its node does not count as its own: spot nodes often go
        away."""
        news.deaths.append(Death(slot.what.name, slot.incarnation, cause, reason))
        deaths = slot.deaths_in_a_row + (cause is not Cause.NODE_LOST)
        if deaths >= MOST_DEATHS_IN_A_ROW:
            raise FleetFailed(
                f"actor {slot.what.name} died {deaths} times without anything for replay in between, at last: {reason}",
                cause,
            )
        slot.kill()  # it may still live, out of reach
        self.restarts[slot.what.benchmark] += 1
        if slot in self.outgoing:
            self.outgoing.remove(slot)
            return
        self.slots[self.slots.index(slot)] = fresh = self._begin(slot.what)
        fresh.deaths_in_a_row = deaths

    def renew(self) -> None:
        """Restart every actor, as after a death, without counting a death."""
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
        """Return the newest reports of actors of one benchmark, except actors that are about to leave."""
        return [slot.report for slot in self.slots if slot.what.benchmark == benchmark and slot.report is not None]

    def stats(self) -> dict[str, FleetCounts]:
        """Return counts by benchmark: actors wanted, collecting and not yet collecting, and restarts."""
        found = {}
        for benchmark, restarts in self.restarts.items():
            slots = [slot for slot in self.slots if slot.what.benchmark == benchmark]
            alive = sum(slot.ready is None for slot in slots)
            found[benchmark] = FleetCounts(len(slots), alive, len(slots) - alive, restarts)
        return found

    @property
    def finished(self) -> bool:
        """Whether every collecting actor has found the budgets of its tasks full at all shards. An actor that does not
        collect yet does not matter if others collect all its tasks."""
        begun = [slot for slot in [*self.slots, *self.outgoing] if slot.ready is None]
        served = self._served(begun)
        if not begun or any(not served.issuperset(slot.what.tasks) for slot in self.slots):
            return False
        return all(slot.report is not None and slot.report.finished for slot in begun)

    @property
    def incarnation(self) -> int:
        """The highest incarnation so far: a resumed run begins above it."""
        return self.first_incarnation + max(self.lives.values(), default=0) - 1

    def stop(self) -> list[ray.ObjectRef]:
        """Ask all loops to end. Return references that are answered when they have. Rows not pushed yet are dropped."""
        for slot in [slot for slot in self.slots if slot.ready is not None]:
            slot.kill()  # it has collected nothing, and must not begin now
        self.slots = [slot for slot in self.slots if slot.ready is None]
        pending: list[ray.ObjectRef] = [slot.handle.stop.remote() for slot in [*self.slots, *self.outgoing]]
        return pending + [gone for _, gone, _ in self.leaving]
