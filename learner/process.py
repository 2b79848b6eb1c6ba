"""The ranks of a learner as Ray processes: sample, update, publish, without waiting for anyone else in between."""

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

AT_ONCE_S = 2.0  # for which the learner makes updates on a CPU before it looks whether it is to stop or to save
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LoopSpec:
    """How the loop runs: its goal, and how often it publishes and measures.

    Attributes:
        ranks: processes that make updates together, and how (learner/scale/sharding.py).
        deadline_s: for what ranks wait for each other before they give up.
        checkpoint: folder or URL of what to go on with; "" for nothing.
        origin: what to begin with where there is no checkpoint.
        evidence: folder for batches that made a loss infinite, and for a trace of `profile` updates.
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
    life: int = 0  # learners that the run has had before this one
    probabilities: tuple[float, ...] = ()  # of each task to be drawn; () if equal


class RankProcess:
    """One rank. It works in a thread of its own, which is the only one that touches the learner.

    One thread for everything is not only simple. OpenMP gives each thread that enters a parallel region its own team,
    and measured on two cores, a training thread whose process held a second team made half the updates per second.
    """

    def __init__(self, spec: LearnerSpec, loop: LoopSpec, rank: int) -> None:
        self.spec = spec
        self.loop = loop
        self.ranks = replace(loop.ranks, rank=rank)
        self.failure: str | None = None
        self.diverged = False  # whether a loss that is not finite was the reason
        self.meeting: TCPStore | None = None  # which the first rank holds
        self.ended = False
        self.watches = 0  # that were asked for
        self.changed = threading.Condition()  # either of these

    def listen(self) -> tuple[str, int]:
        """Have the others find this rank, the first, at the host and port that it answers with."""
        host = ray.util.get_node_ip_address()
        self.meeting = meet(self.ranks, host, 0)
        return host, self.meeting.port

    def begin(self, address: tuple[str, int] | None) -> None:
        """Meet the other ranks there, if there are any, and get to work."""
        self.address = address
        threading.Thread(target=self._run, name="train", daemon=True).start()

    def watch(self) -> None:
        """Answers when the thread has failed, by raising why.

        Also answers when another watch is asked for: the coordinator that asked for this one is dead, and its watch
        would hold a thread of this process for ever.
        """
        with self.changed:
            self.watches += 1
            own = self.watches
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.ended or self.watches > own)
        if self.ended:
            raise self._failed()

    def _failed(self) -> Exception:
        """What its callers are told when the thread has failed."""
        return (NonFinite if self.diverged else RuntimeError)(f"learner failed:\n{self.failure}")

    def ping(self) -> tuple[str, int]:
        """Its node and process id: it is there."""
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
            self.diverged = isinstance(error, NonFinite)
            self.failure = traceback.format_exc()
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def _work(self) -> None:
        """What every rank but the first does."""
        self.crew.follow()


class LearnerProcess(RankProcess):
    """The first rank: samples, leads the updates, publishes. Whatever is asked of it is done between two updates."""

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
        """Answers when the learner is made or restored; says what it is."""
        return self._ask(
            lambda: Ready(
                updates=self.learner.updates,
                device=str(self.learner.device),
                precision=self.spec.config.precision,
                threads=self.pace.settled,
                measured=[Measured(way.precision, way.threads, seconds) for way, seconds in self.ways.items()],
                ranks=self.ranks.count,
                sharding=self.ranks.sharding,
                critic_parameters=sum(p.numel() for p in self.learner.state.modules()["critic"].parameters()),
                consumed=list(self.learner.consumed),
            )
        )

    def start(self) -> None:
        self.training.set()

    def stop(self) -> None:
        """Returns when the updates under way are made; the learner still answers. Sampled batches that are left are
        the first that a `start` goes on with."""
        self.training.clear()
        self._ask(self._finish_all, self.pauses)

    def policy(self) -> PolicyMessage:
        return self._ask(lambda: self.learner.policy())

    def report(self) -> LearnerReport:
        """Counters and the newest metrics."""
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
        """Write a checkpoint, while updates go on; returns the updates it holds, and the seconds that it took."""
        started = time.monotonic()

        def begin() -> dcp.Saving:
            self._finish_all()  # a state that is no number is not to be the newest checkpoint
            return self.crew.save(url)

        with self.saving:  # a coordinator that died may have asked for one that is still being written
            updates = self._ask(begin, self.pauses).result()
        return updates, time.monotonic() - started

    def _ask(self, job: Callable[[], T], jobs: Jobs | None = None) -> T:
        """Have the training thread do a job. Raises what stopped that thread, if it failed."""
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
        # What knows something already does not have actors warm up at random.
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
        # While a GPU is at one, the next is filled.
        self.spaces = [
            Space(room, room) for room in (allocate(self.spec, self.spec.config.batch_size) for _ in range(2))
        ]
        self.in_hand: tuple[Batches, int] | None = None  # sampled and not used yet, and the shard they are from
        self.update_s = math.inf  # of one update, when last measured
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
        """Make the updates of what is in hand, as many as take a moment, and publish when it is time. With nothing in
        hand, sample first."""
        start = time.perf_counter()
        space = self.spaces[0]
        if self.in_hand is None:
            reply = self.sampler.next(timeout=0.2, into=space.batches)
            self.seconds["data_wait"] += time.perf_counter() - start
            if reply is None or reply.batches is None:
                self._finish_all()
                self.crew.idle()
                return
            # Counters that were restored may have granted more than the budget asks for.
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
        """How many of so many updates are made before anything else is looked at: those of a moment, one at least. A
        GPU makes all of them, since it is quick and has recorded whole requests."""
        if self.learner.device.type == "cuda":
            return batches
        return min(batches, max(1, int(AT_ONCE_S / self.update_s)))

    def _finish(self, space: Space) -> None:
        """Wait for what was made of a space; if that was no number, leave the batches behind to be looked at."""
        if space.trained is None:
            return
        trained, space.trained = space.trained, None
        self.metrics |= finish(trained, space.used, Path(self.loop.evidence))
        self.reward_scale = trained.reward_scale

    def _finish_all(self) -> None:
        for space in self.spaces:
            self._finish(space)

    def _publish(self) -> None:
        """Have the policy of now sent, as soon as the device hands it over."""
        start = time.perf_counter()
        self.outgoing = self.learner.outgoing()
        self.published = self.learner.updates
        self.seconds["publish"] += time.perf_counter() - start
        self._send()

    def _send(self) -> None:
        """At most one message is under way: a newer one waits until the store has the last.

        If the store has died, the next message is the first that its successor gets.
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
    """Start all ranks of a learner, the first first, and what reserves their places; nobody is waited for.

    `place` and `named(rank)` are further options of their Ray actors.
    """
    options: dict[str, Any] = {
        "num_cpus": 0,
        "num_gpus": gpus,
        "max_restarts": 0,
        "max_concurrency": 8,
        # Ray limits a worker's OpenMP threads to its CPU share; the learner decides for itself.
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(spec.config.threads)} | ENVIRONMENT},
    }
    places, group = [place], None
    if loop.ranks.count > 1:
        # As few nodes as can be: what the ranks say to each other is more than all else together.
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
