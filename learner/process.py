"""The ranks of a learner as Ray processes. They sample, update and publish, and wait for no other process meanwhile.

This module starts them and answers for them; learner/loop.py does their work. Torch is loaded in the ranks only: the
coordinator imports this module too.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from learner.device_failed import ConnectionFailed, DeviceFailed
from learner.jobs import Jobs, Requests
from learner.nonfinite import NonFinite
from learner.reports import LearnerReport, Ready
from learner.scale.waiting import ENVIRONMENT
from learner.spec import LearnerSpec, LoopSpec
from replay.client.handle import ShardHandle
from replay.policy_store import PolicyMessage

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

T = TypeVar("T")


class RankProcess:
    """One rank. All its work is done in one thread, the training thread (learner/loop.py); no other thread touches the
    learner."""

    def __init__(self, spec: LearnerSpec, loop: LoopSpec, rank: int) -> None:
        self.spec = spec
        self.loop = loop
        self.ranks = replace(loop.ranks, rank=rank)
        self.failure: str | None = None
        self.failed_with: type[Exception] = RuntimeError  # what tells callers why; RuntimeError if nothing does
        self.meeting: TCPStore | None = None  # in the first rank only
        self.ended = False
        self.watches = 0  # number of calls of `watch`
        self.changed = threading.Condition()  # notified when `ended` or `watches` changes

    def listen(self) -> tuple[str, int]:
        """Open the meeting point of the ranks, on the first rank, and return its host and port."""
        from learner.scale.sharding import meet

        host = ray.util.get_node_ip_address()
        self.meeting = meet(self.ranks, host, 0)
        return host, self.meeting.port

    def begin(self, address: tuple[str, int] | None) -> None:
        """Start the training thread, which first meets the other ranks, if any, at this address."""
        self.address = address
        threading.Thread(target=self._run, name="train", daemon=True).start()

    def watch(self) -> None:
        """Wait until the training thread has failed, then raise its failure.

        Also return when `watch` is called again: the earlier caller was a coordinator that has died, and its call would
        occupy a thread of this process for ever.
        """
        with self.changed:
            self.watches += 1
            own = self.watches
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.ended or self.watches > own)
        if self.ended:
            raise self._failed()

    def _failed(self) -> Exception:
        """Return the exception for callers when the training thread has failed."""
        return self.failed_with(f"learner failed:\n{self.failure}")

    def ping(self) -> tuple[str, int]:
        """Return the node id and the process id, to show that this process is alive."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def _run(self) -> None:
        try:
            from learner.loop import plain_errors  # it loads torch, in this process only

            with plain_errors():
                self._work()
        except BaseException as error:
            self.failed_with = next(
                (kind for kind in (NonFinite, MemoryError, ConnectionFailed, DeviceFailed) if isinstance(error, kind)),
                RuntimeError,
            )
            self.failure = traceback.format_exc()
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def _work(self) -> None:
        """Do the work of this rank. Every rank but the first follows the first."""
        from learner.loop import Follower

        Follower(self.spec, self.loop, self.ranks, self.address, self.meeting).run()


class LearnerProcess(RankProcess):
    """The first rank. It samples, leads the updates and publishes. It serves requests between two updates."""

    def __init__(self, spec: LearnerSpec, loop: LoopSpec, shards: list[ShardHandle], store: ActorHandle) -> None:
        super().__init__(spec, loop, 0)
        self.shards = shards
        self.store = store
        self.requests = Requests()
        self.saving = threading.Lock()

    def _work(self) -> None:
        from learner.loop import Leader

        self.leader = Leader(
            self.spec, self.loop, self.ranks, self.address, self.meeting, self.shards, self.store, self.requests
        )
        self.leader.run()

    def ready(self) -> Ready:
        """Wait until the learner is made or restored, and return its description."""
        return self._ask(lambda: self.leader.ready())

    def start(self) -> None:
        self.requests.training.set()

    def stop(self) -> None:
        """Pause training, and return when the updates in progress are done. The learner still answers calls. `start`
        continues with the batches that were sampled but not used."""
        self.requests.training.clear()
        self._ask(lambda: self.leader.finish_all(), self.requests.pauses)

    def policy(self) -> PolicyMessage:
        return self._ask(lambda: self.leader.learner.policy())

    def report(self) -> LearnerReport:
        """Return counters and the newest metrics."""
        return self._ask(lambda: self.leader.report())

    def save(self, url: str) -> tuple[int, float]:
        """Write a checkpoint while updates go on. Return its number of updates and the seconds that it took."""
        started = time.monotonic()
        with self.saving:  # a checkpoint that a dead coordinator requested may still be in progress
            updates = self._ask(lambda: self.leader.save(url), self.requests.pauses).result()
        return updates, time.monotonic() - started

    def _ask(self, job: Callable[[], T], jobs: Jobs | None = None) -> T:
        """Have the training thread do a job and return its result. If that thread has failed, raise its failure."""
        answer: Future[T] = Future()
        (self.requests.jobs if jobs is None else jobs).put((job, answer))
        while True:
            try:
                return answer.result(timeout=1.0)
            except TimeoutError:
                if self.failure is not None:
                    raise self._failed() from None


def start_ranks(
    spec: LearnerSpec,
    loop: LoopSpec,
    shards: list[ShardHandle],
    store: ActorHandle,
    gpus: float,
    place: dict[str, Any],
    named: Callable[[int], dict[str, Any]] = lambda rank: {},
    group_name: str = "",
) -> tuple[list[ActorHandle], PlacementGroup | None]:
    """Start all ranks of a learner, without waiting for them. Return the ranks, the first rank first, and the placement
    group that reserves their resources (None for a single rank).

    `place` and `named(rank)` are further options of their Ray actors.
    """
    options: dict[str, Any] = {
        "num_cpus": 0,
        "num_gpus": gpus,
        "max_restarts": 0,
        "max_concurrency": 8,
        # Ray limits a worker's OpenMP threads to its CPU share; the learner's own setting replaces that limit.
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(spec.config.threads)} | ENVIRONMENT},
    }
    places, group = [place], None
    if loop.ranks.count > 1:
        # On as few nodes as possible: most of the traffic is between the ranks.
        special = place.get("resources", {})
        bundle = ({"GPU": gpus} if gpus else {"CPU": 0.001}) | special
        lifetime = "detached" if group_name else None
        group = placement_group([bundle] * loop.ranks.count, "PACK", group_name, lifetime)
        places = [
            {
                "num_cpus": 0 if gpus else 0.001,
                "resources": special,
                "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
            }
            for rank in range(loop.ranks.count)
        ]
    first = ray.remote(LearnerProcess).options(**(options | places[0] | named(0))).remote(spec, loop, shards, store)
    others = [
        ray.remote(RankProcess).options(**(options | where | named(rank))).remote(spec, loop, rank)
        for rank, where in enumerate(places[1:], 1)
    ]
    ranks = [first, *others]
    address = first.listen.remote() if others else None
    for rank in ranks:
        rank.begin.remote(address)
    return ranks, group
