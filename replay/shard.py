"""A replay shard: storage and rate limiter behind one lock, with pushes that may be repeated safely."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from replay import snapshot
from replay.rate_limiter import RateLimit, RateLimiter
from replay.rows import Batches, Push, Rows, split
from replay.storage import Storage, StorageSpec


@dataclass(frozen=True)
class ShardSpec:
    """What a shard needs to come to life, here or again after its process died."""

    index: int
    storage: StorageSpec
    limit: RateLimit
    seed: int


class InsertReply(NamedTuple):
    """Answer to a push: stored, or to be sent again after `wait_s`.

    `left_over` holds, by task, how many of the push's transitions were stored before this shard's budget for the task
    was full; the rest belongs on another shard.
    """

    accepted: bool
    wait_s: float
    left_over: dict[int, int]


class SampleReply(NamedTuple):
    """Batches, or None and how long to wait before asking again."""

    shard: int
    batches: Batches | None
    wait_s: float


class Shard:
    """Thread-safe; every method returns at once. A Ray actor runs it with several threads (ray_shard)."""

    def __init__(self, spec: ShardSpec) -> None:
        self.spec = spec
        self.storage = Storage(spec.storage, spec.seed)
        self.limiter = RateLimiter(spec.limit, spec.storage.num_tasks)
        self.last_pushes: dict[str, tuple[int, InsertReply]] = {}
        self.repeated_pushes = 0
        self.samples_served = 0
        self.life = 0  # of the learner that may sample
        self.lock = threading.Lock()

    def insert(self, writer: str, sequence: int, push: Push, is_rest: bool = False) -> InsertReply:
        """Store a push unless it is early. (writer, sequence) names it: a repeat is answered as the first time.

        Sequences of a writer must not decrease. Rows are copied; nothing of the push is kept alive. What another shard
        had no budget for (`is_rest`) is never early: it holds some of its writer's tasks only, and the shard may be
        waiting for the others.
        """
        with self.lock:
            known, reply = self.last_pushes.get(writer, (-1, InsertReply(True, 0.0, {})))
            if sequence <= known:
                self.repeated_pushes += 1
                return reply
            if not is_rest and not self.limiter.may_insert(push.rows):
                self.limiter.insert_side.refused()
                return InsertReply(False, self.limiter.insert_wait(push.rows), {})
            left_over: dict[int, int] = {}
            for task, rows in push.rows.items():
                stored = self._store(task, rows)
                if stored < rows.transitions:
                    left_over[task] = stored
            for task, (least, greatest) in push.return_extremes.items():
                self.storage.widen(task, least, greatest)
            self.limiter.insert_side.allowed(push.transitions)
            reply = InsertReply(True, 0.0, left_over)
            self.last_pushes[writer] = (sequence, reply)
            return reply

    def _store(self, task: int, rows: Rows) -> int:
        room = self.limiter.room(task)
        if room is not None and rows.transitions > room:
            if room <= 0:
                return 0
            rows, _ = split(rows, room)
        self.storage.append(task, rows)
        self.limiter.inserted(task, rows.transitions)
        return rows.transitions

    def sample(self, most: int, life: int = 0) -> SampleReply:
        """Up to `most` batches, as many as the limiter allows now; at least one or none, and none to a learner of a
        life before the one that `rewind` was called for."""
        with self.lock:
            count = min(most, self.limiter.batches_allowed()) if life >= self.life else 0
            if count == 0:
                self.limiter.sample_side.refused()
                return SampleReply(self.spec.index, None, self.limiter.sample_wait())
            batches = self.storage.sample(count, self.spec.limit.batch_size)
            rows = count * self.spec.limit.batch_size
            self.limiter.sampled(rows)
            self.limiter.sample_side.allowed(rows)
            self.samples_served += rows
            return SampleReply(self.spec.index, batches, 0.0)

    def rewind(self, samples: int, life: int = 0) -> None:
        """Set the count of samples to what a restored learner has used, so that it makes up for the lost updates.

        What the learner before it asked for may still be waiting for its turn: `life` is how it is told apart.
        """
        with self.lock:
            self.limiter.samples = samples
            self.life = life

    def stats(self) -> dict[str, Any]:
        with self.lock:
            transitions = self.storage.transitions
            return self.limiter.stats() | {
                "shard": self.spec.index,
                "pid": os.getpid(),
                "time": time.time(),
                "inserts_by_task": self.limiter.inserts.tolist(),
                "transitions_by_task": transitions,
                "capacity": self.spec.storage.capacity,
                "fill": sum(transitions) / (self.spec.storage.capacity * len(transitions)),
                "bytes": self.spec.storage.nbytes,
                "samples_served": self.samples_served,
                "repeated_pushes": self.repeated_pushes,
            }

    def save(self, folder: str) -> None:
        """Write everything to `folder`/shard-<index>; inserts and samples wait meanwhile."""
        with self.lock:
            snapshot.save(Path(folder) / f"shard-{self.spec.index}", self.storage, self._state())

    def restore(self, folder: str) -> None:
        """Read what `save` wrote. Raises snapshot.SnapshotError, naming the file, when it is damaged or foreign."""
        with self.lock:
            state = snapshot.load(Path(folder) / f"shard-{self.spec.index}", self.storage)
            self.limiter.inserts[:] = state["inserts"]
            self.limiter.samples = state["samples"]
            self.samples_served = state["samples_served"]
            self.last_pushes = {
                writer: (sequence, InsertReply(True, 0.0, {int(task): n for task, n in left_over.items()}))
                for writer, (sequence, left_over) in state["last_pushes"].items()
            }

    def _state(self) -> dict[str, Any]:
        return {
            "inserts": self.limiter.inserts.tolist(),
            "samples": self.limiter.samples,
            "samples_served": self.samples_served,
            "last_pushes": {
                writer: [sequence, reply.left_over] for writer, (sequence, reply) in self.last_pushes.items()
            },
        }
