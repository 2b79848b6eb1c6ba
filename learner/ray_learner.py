"""A Learner in a Ray process of its own: sample, update, publish, without waiting for anyone in between."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch
from ray.actor import ActorHandle

from learner.learner import Learner, LearnerSpec
from replay.handle import ShardHandle
from replay.placement import on_node
from replay.policy_store import PolicyMessage
from replay.ray_shard import GONE
from replay.sampler import Sampler

T = TypeVar("T")
Jobs = queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]


@dataclass(frozen=True)
class LoopSpec:
    """How the loop runs: its goal, and how often it publishes and measures."""

    total_updates: int
    publish_interval: int  # updates
    diagnostics_interval: int  # updates
    requests_in_flight: int
    life: int = 0  # learners that the run has had before this one
    probabilities: tuple[float, ...] = ()  # of each task to be drawn; () if equal


class LearnerProcess:
    """Trains in a thread of its own, which is the only one that touches the learner: whatever is asked of it is done
    between two updates.

    One thread for everything is not only simple. OpenMP gives each thread that enters a parallel region its own team,
    and measured on two cores, a training thread whose process held a second team made half the updates per second.
    """

    def __init__(
        self,
        spec: LearnerSpec,
        loop: LoopSpec,
        shards: list[ShardHandle],
        store: ActorHandle,
        checkpoint: str | None = None,
    ) -> None:
        self.spec = spec
        self.loop = loop
        self.checkpoint = checkpoint
        self.shards = shards
        self.store = store
        self.publishing: ray.ObjectRef | None = None
        self.published = -1
        self.seconds = {"data_wait": 0.0, "update": 0.0, "publish": 0.0}
        self.jobs: Jobs = queue.SimpleQueue()  # done between two updates
        self.pauses: Jobs = queue.SimpleQueue()  # done when no batch is in hand
        self.training = threading.Event()
        self.failure: str | None = None
        threading.Thread(target=self._run, name="train", daemon=True).start()

    def ready(self) -> dict[str, Any]:
        """Answers when the learner is made or restored; says how many batches of each shard it has used."""
        return self._ask(
            lambda: {
                "updates": self.learner.updates,
                "consumed": list(self.learner.consumed),
                "critic_parameters": sum(p.numel() for p in self.learner.state.critic.parameters()),
                "device": str(self.learner.device),
                "threads": torch.get_num_threads(),
            }
        )

    def start(self) -> None:
        self.training.set()

    def stop(self) -> None:
        """Returns when the batches in hand are used; the learner still answers."""
        self.training.clear()
        self._ask(lambda: None, self.pauses)

    def policy(self) -> PolicyMessage:
        return self._ask(lambda: self.learner.policy())

    def report(self) -> dict[str, Any]:
        """Counters and the newest metrics."""
        return self._ask(
            lambda: {
                "updates": self.learner.updates,
                "metrics": self.learner.read_metrics(),
                "reward_scale": self.learner.reward_scale(),
                "seconds": dict(self.seconds),
                "sampler": self.sampler.stats(),
            }
        )

    def save(self, folder: str) -> int:
        """Write learner.pt between two updates; returns the updates it holds."""

        def write() -> int:
            torch.save(self.learner.state_dict(), Path(folder) / "learner.pt")
            return self.learner.updates

        return self._ask(write)

    def _ask(self, job: Callable[[], T], jobs: Jobs | None = None) -> T:
        """Have the training thread do a job. Raises what stopped that thread, if it failed."""
        answer: Future[T] = Future()
        (self.jobs if jobs is None else jobs).put((job, answer))
        while True:
            try:
                return answer.result(timeout=1.0)
            except TimeoutError:
                if self.failure is not None:
                    raise RuntimeError(f"learner failed:\n{self.failure}") from None

    def _run(self) -> None:
        try:
            self.learner = Learner(self.spec)
            if self.checkpoint is not None:
                saved = torch.load(Path(self.checkpoint) / "learner.pt", map_location="cpu", weights_only=True)
                self.learner.load_state_dict(saved)
                if self.learner.updates > 0:
                    self._publish()
            self.sampler = Sampler(
                self.shards,
                self.spec.most_batches,
                self.loop.requests_in_flight,
                self.loop.life,
                self.learner.consumed,
                self.loop.probabilities,
            )
            self.space = self.learner.allocate()
            self.measured = self.learner.updates - self.loop.diagnostics_interval
            while True:
                goes_on = self.training.is_set() and self.learner.updates < self.loop.total_updates
                do(self.pauses)
                do(self.jobs, wait_s=0.0 if goes_on else 0.05)
                if goes_on:
                    self._train()
        except Exception:
            self.failure = traceback.format_exc()

    def _train(self) -> None:
        """Sample once, make its updates, and publish when it is time."""
        start = time.perf_counter()
        self.learner.release()
        reply = self.sampler.next(timeout=0.2, into=self.space)
        waited = time.perf_counter()
        self.seconds["data_wait"] += waited - start
        if reply is None or reply.batches is None:
            return
        diagnostics = self.learner.updates - self.measured >= self.loop.diagnostics_interval
        # Counters that were restored may have granted more than the budget asks for.
        batches = reply.batches.first(self.loop.total_updates - self.learner.updates)
        self.learner.train(batches, reply.shard, diagnostics, between=lambda: do(self.jobs))
        if diagnostics:
            self.measured = self.learner.updates
        updated = time.perf_counter()
        self.seconds["update"] += updated - waited
        due = self.published < 0 or self.learner.updates - self.published >= self.loop.publish_interval
        if due or self.learner.updates >= self.loop.total_updates:
            self._publish()
        self.seconds["publish"] += time.perf_counter() - updated

    def _publish(self) -> None:
        """At most one message is under way: a newer one waits until the store has the last.

        If the store has died, the next message is the first that its successor gets.
        """
        if self.publishing is not None:
            with suppress(*GONE):
                ray.get(self.publishing)
        self.publishing = self.store.put.remote(self.learner.policy())
        self.published = self.learner.updates


def do(jobs: Jobs, wait_s: float = 0.0) -> None:
    """Do every job there is; when there is none, wait up to `wait_s` seconds for one."""
    try:
        while True:
            job, answer = jobs.get(block=wait_s > 0, timeout=wait_s)
            wait_s = 0.0
            try:
                answer.set_result(job())
            except Exception as error:
                answer.set_exception(error)
    except queue.Empty:
        return


def start_learner(
    spec: LearnerSpec,
    loop: LoopSpec,
    shards: list[ShardHandle],
    store: ActorHandle,
    checkpoint: str | None,
    gpus: float,
) -> ActorHandle:
    options: dict[str, Any] = {
        "num_cpus": 0,
        "num_gpus": gpus,
        **on_node(),
        "max_restarts": 0,
        "max_concurrency": 4,
        # Ray limits a worker's OpenMP threads to its CPU share; the learner decides for itself.
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(spec.threads)}},
    }
    handle: ActorHandle = ray.remote(LearnerProcess).options(**options).remote(spec, loop, shards, store, checkpoint)
    return handle
