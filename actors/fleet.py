"""Keeps the desired number of actor processes alive and collects what they report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import ray
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError, RayActorError

from actors.actor import ActorReport, ActorSpec

MOST_DEATHS_IN_A_ROW = 3
# How a call to a process that is gone ends: the second when Ray's memory monitor has killed it.
DEAD = (RayActorError, OutOfMemoryError)


class Death(NamedTuple):
    """An actor process that died and was replaced."""

    actor: int
    incarnation: int
    cause: str


class Poll(NamedTuple):
    """What is new in the fleet since the last look."""

    reports: list[ActorReport]
    deaths: list[Death]
    started: list[tuple[int, int]]  # (actor, incarnation) that began to collect


class Slot:
    """One place in the fleet: the process that fills it now."""

    def __init__(self, index: int, incarnation: int, handle: ActorHandle) -> None:
        self.index = index
        self.incarnation = incarnation
        self.handle = handle
        self.ready: ray.ObjectRef | None = handle.ready.remote()
        self.asked: ray.ObjectRef | None = None
        self.report: ActorReport | None = None
        self.deaths_in_a_row = 0  # without a push that replay took


class Fleet:
    """Actors 0 to count - 1, each started by `start(spec)` where spec = `make_spec(index, incarnation)`."""

    def __init__(
        self,
        count: int,
        incarnation: int,
        make_spec: Callable[[int, int], ActorSpec],
        start: Callable[[ActorSpec], ActorHandle],
    ) -> None:
        self.make_spec = make_spec
        self.start_actor = start
        self.collecting = False
        self.slots = [Slot(index, incarnation, start(make_spec(index, incarnation))) for index in range(count)]

    def collect(self) -> None:
        """Let actors collect: those that are ready now, and every other as soon as it is."""
        self.collecting = True

    def poll(self) -> Poll:
        """Look at every actor; one that died is replaced at once. Never waits.

        Raises whatever stopped an actor's loop, and RuntimeError when one dies again and again and pushes nothing.
        """
        news = Poll([], [], [])
        for slot in self.slots:
            try:
                if slot.ready is not None:
                    if self._start_when_ready(slot):
                        news.started.append((slot.index, slot.incarnation))
                elif slot.asked is None:
                    slot.asked = slot.handle.report.remote()
                elif answered(slot.asked):
                    slot.report = ray.get(slot.asked)
                    if slot.report.writer["pushes"]:
                        slot.deaths_in_a_row = 0
                    slot.asked = slot.handle.report.remote()
                    news.reports.append(slot.report)
            except DEAD as error:
                news.deaths.append(self._replace(slot, str(error)))
        return news

    def _start_when_ready(self, slot: Slot) -> bool:
        if slot.ready is None or not self.collecting or not answered(slot.ready):
            return False
        ray.get(slot.ready)
        slot.handle.start.remote()
        slot.ready = None
        return True

    def _replace(self, slot: Slot, cause: str) -> Death:
        death = Death(slot.index, slot.incarnation, cause)
        deaths = slot.deaths_in_a_row + 1
        if deaths >= MOST_DEATHS_IN_A_ROW:
            raise RuntimeError(
                f"actor {slot.index} died {deaths} times without adding to replay in between, the last time: {cause}"
            )
        ray.kill(slot.handle)  # it may only have been out of reach
        incarnation = slot.incarnation + 1
        handle = self.start_actor(self.make_spec(slot.index, incarnation))
        self.slots[self.slots.index(slot)] = fresh = Slot(slot.index, incarnation, handle)
        fresh.deaths_in_a_row = deaths
        return death

    def renew(self) -> None:
        """Have every actor begin anew, as after a death, without counting it as one."""
        for slot in list(self.slots):
            ray.kill(slot.handle)
            spec = self.make_spec(slot.index, slot.incarnation + 1)
            self.slots[self.slots.index(slot)] = Slot(slot.index, slot.incarnation + 1, self.start_actor(spec))

    @property
    def reports(self) -> list[ActorReport]:
        """The newest report of every living actor that has made one."""
        return [slot.report for slot in self.slots if slot.report is not None]

    @property
    def finished(self) -> bool:
        """Whether every actor has met a full budget everywhere."""
        return all(slot.report is not None and slot.report.finished for slot in self.slots)

    @property
    def incarnation(self) -> int:
        """The highest so far: a resumed run begins above it."""
        return max(slot.incarnation for slot in self.slots)

    def stop(self, timeout: float) -> None:
        """Ask all loops to end and wait for them; what they had not pushed is dropped."""
        pending: list[Any] = [slot.handle.stop.remote() for slot in self.slots]
        ray.wait(pending, num_returns=len(pending), timeout=timeout)


def answered(reference: ray.ObjectRef) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])
