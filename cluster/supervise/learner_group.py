"""Learner ranks as the coordinator handles them: start, hear reports, replace all ranks when one dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import psutil
import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayTaskError
from ray.util.placement_group import PlacementGroup, remove_placement_group

from actors.causes import Cause
from actors.deaths import DEAD, MOST_DEATHS_IN_A_ROW, answered, cause_of
from cluster.errors import RunFailed
from cluster.run.stop import PARTS_S, Stop, Stopped
from cluster.supervise.waiting import LOOK_S, all_answer, is_late
from learner.device_failed import ConnectionFailed, DeviceFailed
from learner.nonfinite import NonFinite
from learner.reports import LearnerReport, Ready

# Longest time for an answer of a part, which may be writing a large checkpoint or making a very large update.
CALL_TIMEOUT_S = 600.0
PING_TIMEOUT_S = 10.0  # longest time for a running process to answer a ping on a busy machine

Start = Callable[[int], tuple[list[ActorHandle], PlacementGroup | None]]


class LearnerLost(Exception):
    """A rank died or does not answer; the message says which and why. All ranks must be replaced."""

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(message)
        self.cause = cause
        # A lost node or network is not counted as a fault of the learner.
        self.by_itself = cause not in (Cause.NODE_LOST, Cause.OUT_OF_REACH)


class LearnerGroup:
    """Ranks of the learner. `start(life)` makes the ranks of each life, in order; `lives` counts earlier lives.

    A rank that keeps the others waiting for longer than `deadline_s` counts as dead. A method that waits for an answer
    raises Stopped if there is no answer `PARTS_S` after a stop.
    """

    def __init__(self, start: Start, deadline_s: float, stop: Stop, life: int = 0) -> None:
        self.start = start
        self.stop = stop
        self.deadline_s = deadline_s
        self.lives = life
        self.report: LearnerReport | None = None
        self.deaths_in_a_row = 0  # deaths of its own fault, without an update in between
        self.restored_updates = 0
        self._begin()

    def _begin(self) -> None:
        self.ranks, self.places = self.start(self.lives)
        self.first = self.ranks[0]
        self.watches = [rank.watch.remote() for rank in self.ranks]
        self.processes: list[psutil.Process] = []  # on this node
        self.asked: ray.ObjectRef | None = None
        self.asked_at = 0.0

    def train(self, after_stop: float = PARTS_S) -> Ready:
        """Wait until the ranks are ready, and let them train. Return the answer of the first rank. Raises LearnerLost,
        and Stopped if the ranks are not ready `after_stop` seconds after a stop."""
        answer = self.first.ready.remote()
        began = time.monotonic()
        while not answered(answer) and time.monotonic() - began < CALL_TIMEOUT_S:
            if is_late(began, self.stop, after_stop):
                raise Stopped("the learner was not ready yet")
            ray.wait([answer, *self.watches], num_returns=1, timeout=LOOK_S)
            self._watch()
        ready: Ready = self._get(answer, CALL_TIMEOUT_S)
        places = [self._get(rank.ping.remote(), CALL_TIMEOUT_S) for rank in self.ranks]
        here = ray.get_runtime_context().get_node_id()
        with suppress(psutil.NoSuchProcess):  # its watch will report the death
            self.processes = [psutil.Process(pid) for node, pid in places if node == here]
        self.restored_updates = ready.updates
        self.refresh()
        self.ask("start")
        return ready

    @property
    def updates(self) -> int:
        """Number of updates made, by the newest report."""
        return 0 if self.report is None else self.report.updates

    def refresh(self) -> None:
        """Update `report` now. Raises as `hear` does."""
        self.asked, self.report = None, self.ask("report")

    def hear(self) -> None:
        """Take in the newest report if it has come. Never wait for an update, which may take long.

        Raises LearnerLost, and RunFailed when the ranks live but cannot go on.
        """
        self._watch()
        if self.asked is None:
            self.asked, self.asked_at = self.first.report.remote(), time.monotonic()
        elif answered(self.asked):
            asked, self.asked = self.asked, None
            self.report = self._get(asked, CALL_TIMEOUT_S)
        elif time.monotonic() - self.asked_at > self.deadline_s + PING_TIMEOUT_S:
            silent = self._silent()
            if silent or len(self.ranks) > 1:
                raise silent or LearnerLost(f"rank 0 has not answered for {self.deadline_s:.0f} s", Cause.HUNG)
            self.asked_at = time.monotonic()  # a single rank keeps no other waiting: its updates may take this long

    def _watch(self) -> None:
        """Raise if a rank has failed. A watch also ends when another coordinator begins a watch. The lease soon shows
        that the other coordinator is dead, or that it has the run."""
        for rank, watch in enumerate(self.watches):
            if answered(watch):
                try:
                    ray.get(watch)
                except (*DEAD, RayTaskError):
                    self._failed(watch, rank)
                self.watches[rank] = self.ranks[rank].watch.remote()

    def ask(self, method: str) -> Any:
        """Call a method of the first rank and return its answer. Raises as `hear` does."""
        return self._get(getattr(self.first, method).remote(), max(CALL_TIMEOUT_S, self.deadline_s + PING_TIMEOUT_S))

    def _get(self, reference: ray.ObjectRef, timeout: float) -> Any:
        if not all_answer([reference], timeout, self.stop, PARTS_S) and self.stop.left(PARTS_S) <= 0.0:
            raise Stopped("the learner does not answer")
        try:
            return ray.get(reference, timeout=0.0)
        except GetTimeoutError:
            raise self._silent() or LearnerLost(f"rank 0 has not answered for {timeout:.0f} s", Cause.HUNG) from None
        except (*DEAD, RayTaskError):
            self._failed(reference, 0)

    def _failed(self, reference: ray.ObjectRef, rank: int) -> NoReturn:
        """Raise why a call failed: LearnerLost if a rank is dead or silent, or its device has failed; RunFailed if all
        ranks answer, and new ranks would fail too."""
        try:
            ray.get(reference)
        except DEAD as error:
            raise self._lost(rank, error) from error
        except RayTaskError as error:
            silent = self._silent()
            if silent:
                raise silent from error
            # When one rank fails, the others report a closed connection: collect the failures of all.
            ended, _ = ray.wait(self.watches, num_returns=len(self.watches), timeout=PING_TIMEOUT_S)
            failures = [failure for watch in ended if (failure := failure_of(watch)) is not None] or [error]
            raised = [one.cause for one in failures if isinstance(one, RayTaskError)]
            causes = ((NonFinite, Cause.LOSS_NOT_FINITE), (MemoryError, Cause.OUT_OF_MEMORY))
            cause = next((cause for kind, cause in causes for one in raised if isinstance(one, kind)), Cause.RAISED)
            if cause is Cause.RAISED and is_of_devices(raised):
                raise LearnerLost("\n".join(map(str, failures)), Cause.DEVICE_FAILED) from error
            raise RunFailed("\n".join(map(str, failures)), cause) from error
        raise AssertionError(f"rank {rank} did not fail")

    def _lost(self, rank: int, error: Exception) -> LearnerLost:
        """Return the loss of a rank. Ray reports only later whether an unreachable rank, or its node, has died."""
        give_up = time.monotonic() + PING_TIMEOUT_S
        while isinstance(error, ActorUnavailableError) and time.monotonic() < give_up:
            try:
                ray.get(self.ranks[rank].ping.remote(), timeout=PING_TIMEOUT_S)
                break  # the rank lives, but the call to it is lost
            except GetTimeoutError:
                break
            except DEAD as later:
                error = later
            time.sleep(0.1)
        return LearnerLost(f"rank {rank} died: {error}", cause_of(error))

    def _silent(self) -> LearnerLost | None:
        """Return the loss of the first rank that is dead or does not answer; None if all ranks answer."""
        pings = [rank.ping.remote() for rank in self.ranks]
        ray.wait(pings, num_returns=len(pings), timeout=PING_TIMEOUT_S)
        for rank, ping in enumerate(pings):
            if not answered(ping):
                return LearnerLost(f"rank {rank} does not answer", Cause.HUNG)
            try:
                ray.get(ping)
            except DEAD as error:
                return self._lost(rank, error)
        return None

    def replace(
        self, may_have_caused: bool, tell: Callable[[LearnerLost, int], None], cause: LearnerLost
    ) -> tuple[Ready, int]:
        """Kill all ranks and start new ranks until these are ready. Return (their answer, number of lost updates).

        Raises RunFailed after MOST_DEATHS_IN_A_ROW deaths. `may_have_caused`: the learner was saving, which may kill it
        every time, so its updates do not count as progress.
        """
        lost = self.updates
        on = lost > self.restored_updates and not may_have_caused
        self.deaths_in_a_row = 0 if on else self.deaths_in_a_row
        while True:
            self.deaths_in_a_row += cause.by_itself
            if self.deaths_in_a_row >= MOST_DEATHS_IN_A_ROW:
                self.kill()
                times = f"{self.deaths_in_a_row} times without getting on"
                raise RunFailed(f"the learner died {times}: {cause}", cause.cause)
            tell(cause, lost)
            self.kill()
            self.lives += 1
            self._begin()
            try:
                return self.train(), max(0, lost - self.restored_updates)
            except LearnerLost as error:
                cause = error

    def kill(self) -> None:
        """End every rank, also a rank that is stopped or unreachable."""
        for rank in self.ranks:
            ray.kill(rank)
        for process in self.processes:  # Ray asks a process to end; a stopped process does not answer
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(self.processes, PING_TIMEOUT_S)  # their memory and devices are then free for new ranks
        if self.places is not None:
            remove_placement_group(self.places)


def is_of_devices(raised: Sequence[BaseException]) -> bool:
    """Whether ranks failed because a device did. A connection also fails when another rank fails, for any reason."""
    devices = [one for one in raised if isinstance(one, DeviceFailed)]
    by_itself = any(not isinstance(one, ConnectionFailed) for one in devices)
    return by_itself or (bool(devices) and len(devices) == len(raised))


def failure_of(watch: ray.ObjectRef) -> Exception | None:
    """Return the failure that has ended a watch, or None."""
    try:
        ray.get(watch)
    except (*DEAD, RayTaskError) as error:
        found: Exception = error
        return found
    return None
