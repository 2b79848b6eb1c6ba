"""A Learner in a Ray process of its own: sample, update, publish, without waiting for anyone in between."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.actor import ActorHandle

from learner.learner import Learner, LearnerSpec
from replay.client import Sampler, ShardHandle
from replay.policy_store import PolicyMessage


@dataclass(frozen=True)
class LoopSpec:
    """How the loop runs: its goal, and how often it publishes and measures."""

    total_updates: int
    publish_interval: int  # updates
    diagnostics_interval: int  # updates
    requests_in_flight: int


class LearnerProcess:
    """Made ready when created (weights loaded, kernels warm), trains in a thread once started."""

    def __init__(
        self,
        spec: LearnerSpec,
        loop: LoopSpec,
        shards: list[ShardHandle],
        store: ActorHandle,
        checkpoint: str | None = None,
    ) -> None:
        self.loop = loop
        self.learner = Learner(spec)
        if checkpoint is not None:
            self.learner.load_state_dict(torch.load(Path(checkpoint) / "learner.pt", map_location="cpu", weights_only=True))
        self.sampler = Sampler(shards, spec.most_batches, depth=loop.requests_in_flight + 1)
        self.store = store
        self.publishing: ray.ObjectRef | None = None
        self.published = -1
        self.seconds = {"data_wait": 0.0, "update": 0.0, "publish": 0.0}
        self.lock = threading.Lock()  # held while the learner changes
        self.stopping = threading.Event()
        self.failure: str | None = None
        self.thread = threading.Thread(target=self._train, name="train", daemon=True)

    def ready(self) -> dict[str, Any]:
        """Answers when the process is up; says what it will use of each shard's batches so far."""
        parameters = sum(p.numel() for p in self.learner.state.critic.parameters())
        return {
            "updates": self.learner.updates,
            "consumed": list(self.learner.consumed),
            "critic_parameters": parameters,
            "device": str(self.learner.device),
            "threads": torch.get_num_threads(),
        }

    def start(self) -> None:
        self.thread.start()

    def _train(self) -> None:
        try:
            measured = -self.loop.diagnostics_interval
            if self.learner.updates > 0:
                self._publish()
            while not self.stopping.is_set() and self.learner.updates < self.loop.total_updates:
                start = time.perf_counter()
                reply = self.sampler.next(timeout=0.2)
                waited = time.perf_counter()
                self.seconds["data_wait"] += waited - start
                if reply is None or reply.batches is None:
                    continue
                diagnostics = self.learner.updates - measured >= self.loop.diagnostics_interval
                with self.lock:
                    self.learner.train(reply.batches, reply.shard, diagnostics)
                if diagnostics:
                    measured = self.learner.updates
                updated = time.perf_counter()
                self.seconds["update"] += updated - waited
                due = self.published < 0 or self.learner.updates - self.published >= self.loop.publish_interval
                if due or self.learner.updates >= self.loop.total_updates:
                    self._publish()
                self.seconds["publish"] += time.perf_counter() - updated
        except Exception:
            self.failure = traceback.format_exc()

    def _publish(self) -> None:
        """At most one message is under way: a newer one waits until the store has the last."""
        if self.publishing is not None:
            ray.get(self.publishing)
        self.publishing = self.store.put.remote(self.learner.policy())
        self.published = self.learner.updates

    def policy(self) -> PolicyMessage:
        with self.lock:
            return self.learner.policy()

    def report(self) -> dict[str, Any]:
        """Counters and the newest metrics. Raises what stopped the loop, if it failed."""
        if self.failure is not None:
            raise RuntimeError(f"learner failed:\n{self.failure}")
        with self.lock:
            return {
                "updates": self.learner.updates,
                "published": self.published,
                "metrics": self.learner.read_metrics(),
                "reward_scale": self.learner.normalizer.denominator(self.learner.state.log_temperature.detach().exp()).tolist(),
                "seconds": dict(self.seconds),
                "sampler": self.sampler.stats(),
                "finished": self.learner.updates >= self.loop.total_updates,
            }

    def save(self, folder: str) -> int:
        """Write learner.pt between two updates; returns the updates it holds."""
        with self.lock:
            torch.save(self.learner.state_dict(), Path(folder) / "learner.pt")
            return self.learner.updates

    def stop(self) -> None:
        """Returns when the update under way is done."""
        self.stopping.set()
        if self.thread.is_alive():
            self.thread.join()


def start_learner(
    spec: LearnerSpec, loop: LoopSpec, shards: list[ShardHandle], store: ActorHandle, checkpoint: str | None, gpus: float
) -> ActorHandle:
    options: dict[str, Any] = {
        "num_cpus": 0,
        "num_gpus": gpus,
        "max_restarts": 0,
        "max_concurrency": 4,
        # Ray limits a worker's OpenMP threads to its CPU share; the learner decides for itself.
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(spec.threads)}},
    }
    handle: ActorHandle = ray.remote(LearnerProcess).options(**options).remote(spec, loop, shards, store, checkpoint)
    return handle
