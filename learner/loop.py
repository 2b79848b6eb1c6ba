"""The work of one rank, all of it in one thread: the training thread.

OpenMP gives each thread that enters a parallel region its own team of threads. Measured on two cores, a training thread
made half the updates per second when its process held a second team.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ray
import torch
import torch.distributed as dist
from ray.actor import ActorHandle
from torch._C._distributed_c10d import TCPStore

from learner.device_failed import ConnectionFailed, DeviceFailed
from learner.jobs import Requests, Space, do
from learner.learner import Learner
from learner.reports import LearnerReport, Measured, Ready, Seconds
from learner.scale.crew import Crew, allocate
from learner.scale.pace import Pace, steps
from learner.scale.sharding import join, meet
from learner.scale.trace import Trace
from learner.scale.tuning import choose, train_at
from learner.spec import LearnerSpec, LoopSpec, Ranks
from learner.state import dcp
from learner.state.publishing import Outgoing
from learner.state.transfer import begin_from
from learner.trained import finish
from replay.client.handle import ShardHandle
from replay.client.sampler import Sampler
from replay.process import GONE
from replay.store.rows import Batches

AT_ONCE_S = 2.0  # seconds of updates on a CPU between two checks for a request to stop or save


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise MemoryError for what torch raises when a device has no memory left, DeviceFailed when a device fails, and
    ConnectionFailed when NCCL does, with the same words. Who catches them needs no torch then."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except dist.DistBackendError as error:
        raise ConnectionFailed(str(error)) from error
    except RuntimeError as error:
        if isinstance(error, torch.AcceleratorError) and "out of memory" in str(error):
            raise MemoryError(str(error)) from error
        if isinstance(error, torch.AcceleratorError) or device_is_broken():
            raise DeviceFailed(str(error)) from error
        raise


def device_is_broken() -> bool:
    """Whether this process has a GPU that no longer answers. Libraries report that by errors of any kind."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


class Follower:
    """A rank that repeats what the first rank does."""

    def __init__(
        self, spec: LearnerSpec, loop: LoopSpec, ranks: Ranks, address: tuple[str, int] | None, meeting: TCPStore | None
    ) -> None:
        """Meet the other ranks, choose the fastest way to make updates, and make or restore the learner.

        Args:
            address: host and port where the ranks meet; None for a single rank.
            meeting: the meeting point itself, in the rank that opened it.
        """
        self.loop = loop
        if address is not None:
            join(ranks, meeting or meet(ranks, *address), spec.config.device, loop.deadline_s)
        self.most_threads = spec.config.threads
        if loop.checkpoint:
            spec = dcp.continued(spec, loop.checkpoint)
        self.spec, self.ways = choose(spec, ranks)
        self.learner = Learner(self.spec, ranks)
        if loop.checkpoint:
            dcp.load(self.learner, loop.checkpoint)
        elif loop.origin is not None:
            begin_from(self.learner, loop.origin)
        self.crew = Crew(self.learner, loop.deadline_s)

    def run(self) -> None:
        """Work until the run ends."""
        self.crew.follow()


class Leader(Follower):
    """The first rank. It samples, leads the updates and publishes."""

    def __init__(
        self,
        spec: LearnerSpec,
        loop: LoopSpec,
        ranks: Ranks,
        address: tuple[str, int] | None,
        meeting: TCPStore | None,
        shards: list[ShardHandle],
        store: ActorHandle,
        requests: Requests,
    ) -> None:
        """Make a follower that also samples from the shards, publishes to the store and does what is requested."""
        super().__init__(spec, loop, ranks, address, meeting)
        self.shards = shards
        self.store = store
        self.requests = requests
        self.outgoing: Outgoing | None = None
        self.publishing: ray.ObjectRef | None = None
        self.published = -1
        self.policies = 0
        self.seconds = {"data_wait": 0.0, "update": 0.0, "publish": 0.0}
        self.metrics: dict[str, float] = {}
        self.reward_scale = [math.inf] * spec.networks.num_tasks

    def ready(self) -> Ready:
        """Return the description of the learner."""
        measured = [Measured(way.precision, way.threads, seconds) for way, seconds in self.ways.items()]
        return self.learner.ready(self.pace.settled, measured, self.loop.reckoned)

    def report(self) -> LearnerReport:
        """Return counters and the newest metrics."""
        return LearnerReport(
            updates=self.learner.updates,
            metrics=self.metrics,
            reward_scale=self.reward_scale,
            seconds=Seconds(**self.seconds),
            threads=self.pace.settled,
            policies=self.policies,
            sampler=self.sampler.stats(),
        )

    def save(self, url: str) -> dcp.Saving:
        """Begin to write a checkpoint. Raises NonFinite rather than save a state that is not finite."""
        self.finish_all()
        return self.crew.save(url)

    def run(self) -> None:
        """Sample, update and publish until the run ends. Between two updates, do what other threads ask for."""
        threads, chosen = self.spec.config.threads, self.spec.config.precision
        known = {way.threads: seconds for way, seconds in self.ways.items() if way.precision == chosen}
        self.pace = Pace(steps(self.most_threads) if self.spec.tuned else [threads], threads, known)
        # A policy that was trained before is published now, so that actors do not act at random in the warm-up.
        offline = self.spec.config.offline_updates
        if (self.learner.updates > 0 or self.loop.origin is not None) and self.learner.updates >= offline:
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
            do(self.requests.pauses)
            goes_on = self.requests.training.is_set() and self.learner.updates < self.loop.total_updates
            do(self.requests.jobs, wait_s=0.0 if goes_on else 0.05)
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
                self.finish_all()
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
        space.trained = train_at(self.pace, self.crew, space.used, shard, diagnostics, lambda: do(self.requests.jobs))
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
        due &= self.learner.updates >= self.spec.config.offline_updates  # actors wait for what all of these have made
        if due or self.learner.updates >= self.loop.total_updates:
            self._publish()

    def _at_once(self, batches: int) -> int:
        """Return how many of these updates to make before other work is checked: about AT_ONCE_S seconds of them, at
        least one. A GPU makes all of them, since it is fast."""
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

    def finish_all(self) -> None:
        """Wait until the updates in progress are done."""
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
