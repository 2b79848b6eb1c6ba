"""A replay shard: storage and rate limiter over memory that outlives the process, with pushes that may be repeated."""

from __future__ import annotations

import os
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from replay.rate_limiter import MAX_WAIT_S, RateLimit, RateLimiter
from replay.snapshots.restore import is_exact, restore_dealt, restore_exactly
from replay.snapshots.snapshot import Place, SnapshotError, Snapshotter
from replay.stats import ShardStats
from replay.store.locations import node_memory
from replay.store.memory import NAME_BYTES, FilesError, FilesInUse, PrivateMemory, ShardFiles
from replay.store.rows import Batches, Push
from replay.store.soundness import Dropped
from replay.store.storage import Storage, StorageSpec

Life = tuple[int, int]  # learners that a run has had, and how often the present one has settled its count


@dataclass(frozen=True, kw_only=True)
class ShardSpec:
    """What a shard needs to come to life, here or again after its process died.

    Attributes:
        index: its number among `shards`.
        run: a name that no other run ever has; files of another run are not taken over.
        folder: of its files; "" keeps everything in memory of the process.
        snapshots: folder or URL for snapshots; "" for none.
        snapshot: the snapshot that a resumed run begins with; "" for none.
        take: counts how often the run's files have been taken over, this time included. Files that were last taken over
            before the time before are out of date: the run went on without them.
    """

    index: int
    storage: StorageSpec
    limit: RateLimit
    seed: int
    shards: int = 1
    run: str = ""
    folder: str = ""
    snapshots: str = ""
    snapshot: str = ""
    take: int = 1


class InsertReply(NamedTuple):
    """Answer to a push: stored or not. What is not stored may be sent again after `wait_s`, if that is positive.

    `room` holds, for tasks of the push, how many transitions the shard's budget has left: of those for which the push
    was too long, or that are full now. Such a push is to be split.
    """

    accepted: bool
    wait_s: float
    room: dict[int, int]


class SampleReply(NamedTuple):
    """What a request to sample came to.

    Attributes:
        shard: which answers.
        granted: batches that its limiter has allowed and counted.
        batches: these, if they were asked for from here; None otherwise, and where there are none.
        wait_s: how long to wait before asking again, when none was granted.
        content: transitions held, by task.
        is_stranger: the sampler has to settle first.
    """

    shard: int
    granted: int
    batches: Batches | None
    wait_s: float
    content: tuple[int, ...]
    is_stranger: bool = False


class Shard:
    """Thread-safe; every method but `save` returns at once. A Ray actor runs it with several threads (ray_shard).

    What it begins with: its files if they are there and whole, and it has been in no others since; else the snapshot,
    else nothing; `origin` says which.

    Args:
        again: whether a shard with this spec has lived before. Without files it then takes the newest snapshot that is
            whole, not `spec.snapshot`, and no pushes until it has been told what its predecessor had counted.
    """

    node = ""  # of Ray, in a process of its own

    def __init__(self, spec: ShardSpec, again: bool = False) -> None:
        self.spec = spec
        self.token = uuid.uuid4().hex  # of this process
        self.lock = threading.Lock()
        self.saving = threading.Lock()
        self.place = Place(spec.snapshots) if spec.snapshots else None
        self.memory, self.problem = self._open()
        state = self.memory.state
        self.storage = Storage(spec.storage, self.memory.rows, state, spec.seed)
        self.limiter = RateLimiter(spec.limit, spec.storage.num_tasks, inserts=state["inserts"])
        self.snapshotter: Snapshotter | None = None
        self.origin = "empty"
        if self.memory.recovered:
            self.origin = "files"
            self.limiter.samples = int(state["samples"])
            # The stream of samples need not be the same as before, but must not begin again.
            self.storage.rng = np.random.default_rng([spec.seed, self.limiter.samples, 1])
        elif self.place is not None and again:
            self._restore_newest()
        elif self.place is not None and spec.snapshot:
            self.restore(spec.snapshot)
        self.dropped = Dropped(0, 0)
        if self.origin != "empty":
            self.dropped = self.storage.drop_bad()
            self.memory.commit()
        if self.place is not None and isinstance(self.memory, ShardFiles) and not self.memory.recovered:
            self.place.move_in(spec.index, self.memory.token)
        self.caught_up = self.memory.recovered or not again
        self.refused: dict[str, int] = {}  # the newest push of each writer that was not taken
        if self.place is not None and self.snapshotter is None:
            self.snapshotter = Snapshotter(self.place, spec.index, spec.shards)
        self.inserts_at_start = self.limiter.inserts.copy()
        self.repeated_pushes = 0

    def _open(self) -> tuple[PrivateMemory, str]:
        """The memory, and what was wrong with files that could not be taken over and were replaced."""
        spec = self.spec
        tasks = (spec.storage.num_tasks,)
        state = [*spec.storage.state_dtype(), ("inserts", "<i8", tasks), ("samples", "<i8"), ("life", "<i8", (2,))]
        if not spec.folder:
            return PrivateMemory(spec.storage.nbytes, state), ""
        identity = {"run": spec.run, "shard": spec.index, "shards": spec.shards} | spec.storage.layout()

        def files() -> ShardFiles:
            return ShardFiles(Path(spec.folder), identity, spec.storage.nbytes, state, spec.take)

        header = Path(spec.folder) / "header"
        try:
            memory = files()
            problem = self._left(memory)
            if not problem:
                return memory, ""
            memory.close(remove=False)
        except FilesInUse:
            raise
        except FilesError as error:
            if not header.exists():
                raise
            problem = str(error)
        header.unlink()
        return files(), problem

    def _left(self, memory: ShardFiles) -> str:
        """Whether the shard has left these files for others, as when its node was cut off: they are a past, or a future
        that was not to be."""
        if not memory.recovered or self.place is None:
            return ""
        home = self.place.home(self.spec.index)
        return "" if home in (None, memory.token) else f"{memory.folder} is out of date: the shard has left it"

    def insert(self, writer: str, sequence: int, push: Push, is_rest: bool = False) -> InsertReply:
        """Store a push unless it is early or too long. (writer, sequence) names it: a repeat is stored once.

        Sequences of a writer must not decrease, and one that was refused stays refused: the push is sent again under
        another, here or elsewhere. Rows are copied; nothing of the push is kept alive. A push that holds some of its
        writer's tasks only (`is_rest`), as what a budget had no room for, is never early: the shard may be waiting for
        the others.

        Raises ValueError for rows that do not fit the storage, or a name that is too long.
        """
        if len(writer.encode()) > NAME_BYTES:
            raise ValueError(f"writer {writer!r} has a name of more than {NAME_BYTES} bytes")
        with self.lock:
            if sequence <= self.memory.sequences.get(writer, -1):
                self.repeated_pushes += 1
                return InsertReply(True, 0.0, self._room(dict.fromkeys(push.rows, 1)))
            for task, rows in push.rows.items():
                self.storage.check(task, rows)
            # A call that its writer has given up may come late: what was refused then may be on another shard by now.
            if not self.caught_up or sequence <= self.refused.get(writer, -1):
                self.refused[writer] = max(sequence, self.refused.get(writer, -1))
                return InsertReply(False, MAX_WAIT_S, {})
            # Of a task that holds nothing, as when all of it was dropped, the sampler may wait for the first.
            early = not self.limiter.may_insert(push.rows)
            if early and not is_rest and all(self.storage.rings[task].transitions for task in push.rows):
                self.limiter.insert_side.refused()
                self.refused[writer] = sequence
                return InsertReply(False, self.limiter.insert_wait(push.rows), {})
            room = self._room({task: rows.transitions for task, rows in push.rows.items()})
            if room:
                self.refused[writer] = sequence
                return InsertReply(False, 0.0, room)
            self.storage.append(push, self.memory.commit)
            for task, rows in push.rows.items():
                self.limiter.inserted(task, rows.transitions)
            self.memory.commit_push(writer, sequence)
            self.limiter.insert_side.allowed(push.transitions)
            return InsertReply(True, 0.0, self._room(dict.fromkeys(push.rows, 1)))

    def _room(self, transitions: dict[int, int]) -> dict[int, int]:
        """What the budget has left, for the tasks in which that is less than so many."""
        left = {task: self.limiter.room(task) for task in transitions}
        return {task: room for task, room in left.items() if room is not None and room < transitions[task]}

    def sample(
        self,
        most: int,
        life: Life,
        totals: tuple[int, ...] | None = None,
        granted: int = 0,
        serve: bool = True,
    ) -> SampleReply:
        """Up to `most` batches, as many as the limiter allows now; at least one or none.

        Args:
            life: what `settle` was last called with; nothing is given to others.
            totals: transitions of each task in all shards. Tasks are then drawn by the part of them that is here, so
                that over all shards every transition of a task is equally likely. None: by the tasks' weights alone.
            granted: batches that another shard's limiter has allowed: serve exactly these, and do not count them.
            serve: False only to have them granted.
        """
        with self.lock:
            content = tuple(self.storage.transitions)
            if life != tuple(self.memory.state["life"]):
                return SampleReply(self.spec.index, 0, None, 0.0, content, is_stranger=True)
            count = granted or min(most, self.limiter.batches_allowed())
            if count == 0:
                self.limiter.sample_side.refused()
                return SampleReply(self.spec.index, 0, None, self.limiter.sample_wait(), content)
            probabilities = self._probabilities(content, totals)
            if serve and probabilities is None:
                return SampleReply(self.spec.index, 0, None, self.limiter.sample_wait(), content)
            rows = count * self.spec.limit.batch_size
            if not granted:
                self.limiter.sampled(rows)
                self.limiter.sample_side.allowed(rows)
                self._commit()
        if not serve:
            return SampleReply(self.spec.index, count, None, 0.0, content)
        batches = self.storage.sample(count, self.spec.limit.batch_size, self.lock, self._space(count), probabilities)
        return SampleReply(self.spec.index, count, batches, 0.0, content)

    def _space(self, count: int) -> Batches:
        """Where to put so many batches."""
        return self.storage.allocate(count, self.spec.limit.batch_size)

    def _probabilities(self, content: tuple[int, ...], totals: tuple[int, ...] | None) -> np.ndarray | None:
        """Of each task to be drawn here; None while there is nothing to draw."""
        probabilities = self.spec.storage.probabilities
        held = np.array(content)
        if totals is not None:
            probabilities = probabilities * (held / np.maximum(held, totals))
        elif not held.all():
            return None
        total = probabilities.sum()
        return probabilities / total if total > 0 else None

    def _commit(self) -> None:
        """Make the state last, the count of samples included."""
        self.memory.state["samples"] = self.limiter.samples
        self.memory.commit()

    def settle(self, batches: int, life: Life) -> tuple[int, ...]:
        """Set the count of samples to what a learner has used or received, and serve it alone from now on.

        What was granted to a learner that died, or in an answer that was lost, is thereby granted again. Requests from
        before may still be waiting for their turn: by their `life` they are told apart. Returns the transitions held.
        """
        with self.lock:
            self.limiter.samples = batches * self.spec.limit.batch_size
            self.memory.state["life"] = life
            self._commit()
            return tuple(self.storage.transitions)

    def catch_up(self, inserts: list[int]) -> ShardStats:
        """Count inserts of each task that were made before this process began, as its predecessor is known to have.

        Some of them it may have lost. They were made nevertheless: environment steps do not go backwards, and what was
        learnt from them is not learnt again. Returns `stats`.
        """
        with self.lock:
            missed = np.maximum(np.array(inserts) - self.inserts_at_start, 0)
            self.limiter.inserts += missed
            self.inserts_at_start += missed
            self.caught_up = True
            self.memory.commit()
        return self.stats()

    def stats(self) -> ShardStats:
        available, total = node_memory()
        with self.lock:
            transitions = self.storage.transitions
            return ShardStats(
                shard=self.spec.index,
                pid=os.getpid(),
                token=self.token,
                caught_up=self.caught_up,
                limiter=self.limiter.stats(),
                inserts_by_task=self.limiter.inserts.tolist(),
                transitions_by_task=transitions,
                clipped_by_task=[ring.clipped for ring in self.storage.rings],
                fill=min(1.0, sum(transitions) / sum(self.spec.storage.capacity)),
                bytes=self.spec.storage.nbytes,
                node_available_bytes=available,
                node_total_bytes=total,
                repeated_pushes=self.repeated_pushes,
                bad_segments=self.dropped.segments,
                bad_transitions=self.dropped.transitions,
                origin=self.origin,
                problem=self.problem,
                node=self.node,
            )

    def save(self, name: str) -> int:
        """Write a snapshot and return its new bytes; pushes and samples go on meanwhile. One at a time."""
        if self.snapshotter is None:
            raise RuntimeError("this shard has no place for snapshots")
        with self.saving:
            return self.snapshotter.save(name, self.storage, self._counters, self.lock)

    def _counters(self) -> dict[str, Any]:
        return {
            "inserts": self.limiter.inserts.tolist(),
            "samples": self.limiter.samples,
            "sequences": dict(self.memory.sequences),
            "rng": self.storage.rng.bit_generator.state,
        }

    def _restore_newest(self) -> None:
        """Take in the newest snapshot that is whole; what is wrong with others is part of `problem`."""
        assert self.place is not None
        # They are listed twice: all that there were may have been removed for a newer one meanwhile.
        for name in (name for _ in range(2) for name in reversed(self.place.snapshots())):
            try:
                self.restore(name)
                return
            except SnapshotError as error:
                self.problem = "; ".join(filter(None, (self.problem, str(error))))
                self.storage.clear()
                self.limiter.inserts[:], self.limiter.samples = 0, 0

    def restore(self, name: str) -> None:
        """Take in a snapshot, which may be of other shards than this. Raises SnapshotError, naming the file."""
        assert self.place is not None
        manifests = self.place.manifests(name)
        spec = self.spec
        if is_exact(manifests[0], spec.shards, spec.storage):
            manifest = manifests[spec.index]
            restore_exactly(self.storage, self.place, manifest)
            self.limiter.inserts[:] = manifest["counters"]["inserts"]
            self.limiter.samples = manifest["counters"]["samples"]
            self.memory.remember(manifest["counters"]["sequences"])
            self.snapshotter = Snapshotter(self.place, spec.index, spec.shards, manifest)
        else:
            restore_dealt(self.storage, self.place, manifests, spec.index, spec.shards)
            self._deal_counters(manifests)
        self._commit()
        self.origin = f"snapshot {name}"

    def _deal_counters(self, manifests: list[dict[str, Any]]) -> None:
        """This shard's share of all counts. A task that joins counts from where the others are, warm-up to come."""
        spec, known = self.spec, manifests[0]["spec"]["tasks"]
        total = np.sum([manifest["counters"]["inserts"] for manifest in manifests], axis=0)
        shares = {task: share(int(count), spec.index, spec.shards) for task, count in zip(known, total, strict=True)}
        joining = max(0, min(shares.values()) - spec.limit.warmup)
        self.limiter.inserts[:] = [shares.get(task, joining) for task in spec.storage.tasks]
        batches = sum(manifest["counters"]["samples"] for manifest in manifests) // spec.limit.batch_size
        self.limiter.samples = share(batches, spec.index, spec.shards) * spec.limit.batch_size

    def close(self, remove: bool) -> None:
        """Let go of the files; `remove` them when a checkpoint holds everything."""
        self.memory.close(remove)


def share(total: int, index: int, parts: int) -> int:
    """The part of `total` that falls to `index` when it is dealt as evenly as whole numbers allow."""
    return total // parts + (index < total % parts)
