"""The ranks of a learner as Ray processes. They sample, update and publish, and wait for no other process meanwhile."""

from __future__ import annotations

import math
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch._C._distributed_c10d import TCPStore

from learner.jobs import Jobs, Space, do
from learner.learner import Learner, LearnerSpec, finish
from learner.nonfinite import NonFinite
from learner.reports import LearnerReport, Measured, Ready, Seconds
from learner.scale.crew import Crew, allocate
from learner.scale.pace import Pace, steps
from learner.scale.sharding import ALONE, Ranks, join, meet
from learner.scale.trace import Trace
from learner.scale.tuning import choose, train_at
from learner.scale.waiting import ENVIRONMENT
from learner.state import dcp
from learner.state.publishing import Outgoing
from learner.state.transfer import Origin, begin_from
from replay.client.handle import ShardHandle
from replay.client.sampler import Sampler
from replay.policy_store import PolicyMessage
from replay.process import GONE
from replay.store.rows import Batches

AT_ONCE_S = 2.0  # seconds of updates on a CPU between two checks for a request to stop or save
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LoopSpec:
    """Settings of the training loop: its goal, and how often it publishes and measures.

    Attributes:
        ranks: processes that make updates together, and how they share the work (learner/scale/sharding.py).
        deadline_s: seconds that ranks wait for each other before they fail.
        checkpoint: folder or URL of the checkpoint to resume from; "" for none.
        origin: trained agent to begin from, if there is no checkpoint.
        evidence: folder for batches that made a loss infinite or NaN, and for a trace of `profile` updates.
    """

    total_updates: int
    publish_interval: int  # updates
    diagnostics_interval: int  # updates
    requests_in_flight: int
    ranks: Ranks = ALONE
    deadline_s: float = 120.0
    checkpoint: str = ""
    origin: Origin | None = None
    evidence: str = ""
    profile: int = 0
    life: int = 0  # number of earlier learners in the run
    probabilities: tuple[float, ...] = ()  # probability of drawing each task; () if equal


class RankProcess:
    """One rank. All its work is done in one thread, the training thread; no other thread touches the learner.

    OpenMP gives each thread that enters a parallel region its own team of threads. Measured on two cores, a training
    thread made half the updates per second when its process held a second team.
    """

    def __init__(self, spec: LearnerSpec, loop: LoopSpec, rank: int) -> None:
        self.spec = spec
        self.loop = loop
        self.ranks = replace(loop.ranks, rank=rank)
        self.failure: str | None = None
        self.failed_with: type[Exception] = RuntimeError  # what tells callers why: NonFinite, MemoryError, or neither
        self.meeting: TCPStore | None = None  # in the first rank only
        self.ended = False
        self.watches = 0  # number of calls of `watch`
        self.changed = threading.Condition()  # notified when `ended` or `watches` changes

    def listen(self) -> tuple[str, int]:
        """Open the meeting point of the ranks, on the first rank, and return its host and port."""
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
            if self.address is not None:
                meeting = self.meeting or meet(self.ranks, *self.address)
                join(self.ranks, meeting, self.spec.config.device, self.loop.deadline_s)
            self.most_threads = self.spec.config.threads
            if self.loop.checkpoint:
                self.spec = dcp.continued(self.spec, self.loop.checkpoint)
            self.spec, self.ways = choose(self.spec, self.ranks)
            self.learner = Learner(self.spec, self.ranks)
            if self.loop.checkpoint:
                dcp.load(self.learner, self.loop.checkpoint)
            elif self.loop.origin is not None:
                begin_from(self.learner, self.loop.origin)
            self.crew = Crew(self.learner, self.loop.deadline_s)
            self._work()
        except BaseException as error:
            if isinstance(error, NonFinite):
                self.failed_with = NonFinite
            elif isinstance(error, (MemoryError, torch.OutOfMemoryError)):
                self.failed_with = MemoryError
            self.failure = traceback.format_exc()
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def _work(self) -> None:
        """Do the work of this rank. Every rank but the first follows the first."""
        self.crew.follow()


class LearnerProcess(RankProcess):
    """The first rank. It samples, leads the updates and publishes. It serves requests between two updates."""

    def __init__(self, spec: LearnerSpec, loop: LoopSpec, shards: list[ShardHandle], store: ActorHandle) -> None:
        super().__init__(spec, loop, 0)
        self.shards = shards
        self.store = store
        self.outgoing: Outgoing | None = None
        self.publishing: ray.ObjectRef | None = None
        self.published = -1
        self.policies = 0
        self.seconds = {"data_wait": 0.0, "update": 0.0, "publish": 0.0}
        self.metrics: dict[str, float] = {}
        self.reward_scale = [math.inf] * spec.networks.num_tasks
        self.saving = threading.Lock()
        self.jobs: Jobs = queue.SimpleQueue()  # done between two updates
        self.pauses: Jobs = queue.SimpleQueue()  # done when no update is under way
        self.training = threading.Event()

    def ready(self) -> Ready:
        """Wait until the learner is made or restored, and return its description."""
        return self._ask(
            lambda: self.learner.ready(
                self.pace.settled,
                [Measured(way.precision, way.threads, seconds) for way, seconds in self.ways.items()],
            )
        )

    def start(self) -> None:
        self.training.set()

    def stop(self) -> None:
        """Pause training, and return when the updates in progress are done. The learner still answers calls. `start`
        continues with the batches that were sampled but not used."""
        self.training.clear()
        self._ask(self._finish_all, self.pauses)

    def policy(self) -> PolicyMessage:
        return self._ask(lambda: self.learner.policy())

    def report(self) -> LearnerReport:
        """Return counters and the newest metrics."""
        return self._ask(
            lambda: LearnerReport(
                updates=self.learner.updates,
                metrics=self.metrics,
                reward_scale=self.reward_scale,
                seconds=Seconds(**self.seconds),
                threads=self.pace.settled,
                policies=self.policies,
                sampler=self.sampler.stats(),
            )
        )

    def save(self, url: str) -> tuple[int, float]:
        """Write a checkpoint while updates go on. Return its number of updates and the seconds that it took."""
        started = time.monotonic()

        def begin() -> dcp.Saving:
            self._finish_all()  # raises NonFinite rather than save a state that is not finite
            return self.crew.save(url)

        with self.saving:  # a checkpoint that a dead coordinator requested may still be in progress
            updates = self._ask(begin, self.pauses).result()
        return updates, time.monotonic() - started

    def _ask(self, job: Callable[[], T], jobs: Jobs | None = None) -> T:
        """Have the training thread do a job and return its result. If that thread has failed, raise its failure."""
        answer: Future[T] = Future()
        (self.jobs if jobs is None else jobs).put((job, answer))
        while True:
            try:
                return answer.result(timeout=1.0)
            except TimeoutError:
                if self.failure is not None:
                    raise self._failed() from None

    def _work(self) -> None:
        threads, chosen = self.spec.config.threads, self.spec.config.precision
        known = {way.threads: seconds for way, seconds in self.ways.items() if way.precision == chosen}
        self.pace = Pace(steps(self.most_threads) if self.spec.tuned else [threads], threads, known)
        # A policy that was trained before is published now, so that actors do not act at random in the warm-up.
        if self.learner.updates > 0 or self.loop.origin is not None:
            self._publish()
        self.sampler = Sampler(
            self.shards,
            self.spec.config.batches_per_request,
            self.loop.requests_in_flight,
            self.loop.life,
            self.learner.consumed,
            self.loop.probabilities,
        )
        # There are two: the next is filled while a GPU uses the other.
        self.spaces = [
            Space(room, room) for room in (allocate(self.spec, self.spec.config.batch_size) for _ in range(2))
        ]
        self.in_hand: tuple[Batches, int] | None = None  # batches sampled but not used yet, and their shard
        self.update_s = math.inf  # seconds of one update, when last measured
        self.measured = self.learner.updates - self.loop.diagnostics_interval
        self.trace = Trace(Path(self.loop.evidence), self.loop.profile, self.spec.config.batches_per_request)
        while True:
            do(self.pauses)
            goes_on = self.training.is_set() and self.learner.updates < self.loop.total_updates
            do(self.jobs, wait_s=0.0 if goes_on else 0.05)
            self._send()
            if goes_on:
                self._train()
            else:
                self.crew.idle()

    def _train(self) -> None:
        """Update with the batches in hand, for about AT_ONCE_S seconds, and publish when it is due. If there are none
        in hand, sample first."""
        start = time.perf_counter()
        space = self.spaces[0]
        if self.in_hand is None:
            reply = self.sampler.next(timeout=0.2, into=space.batches)
            self.seconds["data_wait"] += time.perf_counter() - start
            if reply is None or reply.batches is None:
                self._finish_all()
                self.crew.idle()
                return
            # With restored counters, the shard may grant more batches than the budget needs.
            self.in_hand = reply.batches.first(self.loop.total_updates - self.learner.updates), reply.shard
        begun = time.perf_counter()
        self._finish(space)
        diagnostics = self.learner.updates - self.measured >= self.loop.diagnostics_interval
        batches, shard = self.in_hand
        count = self._at_once(batches.num_batches)
        space.used = batches.first(count)
        space.trained = train_at(self.pace, self.crew, space.used, shard, diagnostics, lambda: do(self.jobs))
        self.in_hand = (batches.rest(count), shard) if count < batches.num_batches else None
        self.update_s = (time.perf_counter() - begun) / count
        if self.in_hand is None:
            self.spaces.reverse()
            self._finish(self.spaces[0])
            self.trace.step()
        if diagnostics:
            self.measured = self.learner.updates
        updated = time.perf_counter()
        self.seconds["update"] += updated - begun
        due = self.published < 0 or self.learner.updates - self.published >= self.loop.publish_interval
        if due or self.learner.updates >= self.loop.total_updates:
            self._publish()

    def _at_once(self, batches: int) -> int:
        """Return how many of these updates to make before other work is checked: about AT_ONCE_S seconds of them, at
        least one. A GPU makes all of them, since it is fast and has recorded whole requests."""
        if self.learner.device.type == "cuda":
            return batches
        return min(batches, max(1, int(AT_ONCE_S / self.update_s)))

    def _finish(self, space: Space) -> None:
        """Wait for the updates with a space's batches. If a loss is not finite, the batches are saved as evidence."""
        if space.trained is None:
            return
        trained, space.trained = space.trained, None
        self.metrics |= finish(trained, space.used, Path(self.loop.evidence))
        self.reward_scale = trained.reward_scale

    def _finish_all(self) -> None:
        for space in self.spaces:
            self._finish(space)

    def _publish(self) -> None:
        """Send the current policy as soon as the device has copied it."""
        start = time.perf_counter()
        self.outgoing = self.learner.outgoing()
        self.published = self.learner.updates
        self.seconds["publish"] += time.perf_counter() - start
        self._send()

    def _send(self) -> None:
        """Send the outgoing policy if it has been copied and the store has the last message. Never waits.

        If the store has died, the next message goes to its successor.
        """
        if self.outgoing is None or not self.outgoing.ready():
            return
        start = time.perf_counter()
        if self.publishing is not None:
            if not ray.wait([self.publishing], timeout=0)[0]:
                return  # training does not wait for a store that hangs
            with suppress(*GONE):
                ray.get(self.publishing)
        message = self.outgoing.message()
        self.publishing = self.store.put.remote(message, time.monotonic() - message.published_at)
        self.outgoing = None
        self.policies += 1
        self.seconds["publish"] += time.perf_counter() - start


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
