"""A replay shard: storage and rate limiter over memory that outlives the process, with pushes that may be repeated."""

from __future__ import annotations

import os
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from replay.demonstrations import Source
from replay.rate_limiter import MAX_WAIT_S, RateLimit, RateLimiter
from replay.snapshots.restore import is_exact, restore_dealt, restore_exactly
from replay.snapshots.snapshot import Place, SnapshotError, Snapshotter
from replay.stats import ShardStats
from replay.store.demonstration_rings import DemonstrationRings
from replay.store.locations import node_memory
from replay.store.memory import NAME_BYTES, FilesError, FilesInUse, PrivateMemory, ShardFiles
from replay.store.rows import Batches, Push
from replay.store.soundness import Dropped
from replay.store.storage import Storage, StorageSpec

Life = tuple[int, int]  # number of learners of the run so far, and of calls of `settle` by the present learner


@dataclass(frozen=True, kw_only=True)
class ShardSpec:
    """Everything that a shard is made from, at first and after its process has died.

    Attributes:
        index: its number among `shards`.
        run: name of the run, unique among all runs; files of another run are not taken over.
        folder: folder of its files; "" keeps everything in the memory of the process.
        snapshots: folder or URL for snapshots; "" for none.
        snapshot: the snapshot from which a resumed run begins; "" for none.
        demonstrations: files of demonstrations, which are read whenever the shard begins.
        take: how often the run's files have been taken over, this time included. Files that were not taken over the
            last time are out of date: the run went on without them.
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
    demonstrations: tuple[Source, ...] = ()
    take: int = 1


class InsertReply(NamedTuple):
    """The answer to a push. A push that is not accepted may be sent again after `wait_s` seconds, if that is positive.

    `room` holds how many transitions the shard's budget has left, for the tasks of which the push has too many or whose
    budget is now full. A push that is not accepted because of `room` must be split.
    """

    accepted: bool
    wait_s: float
    room: dict[int, int]


class SampleReply(NamedTuple):
    """The answer to a request to sample.

    Attributes:
        shard: index of the shard that answers.
        granted: number of batches granted: by its own limiter, or by that of another shard if the request says so.
        batches: the batches; None if the request was for a grant only, or there are none.
        wait_s: seconds to wait before the next request, when none was granted.
        content: transitions held, by task.
        is_stranger: whether the sampler must call `settle` first.
    """

    shard: int
    granted: int
    batches: Batches | None
    wait_s: float
    content: tuple[int, ...]
    is_stranger: bool = False


class Shard:
    """A replay shard. Thread-safe; every method but `save` returns at once. A Ray actor runs it with several threads
    (process.py).

    A shard begins with its files, if they are whole and it has used no other files since; else with the snapshot; else
    empty. `origin` says which.

    Args:
        again: whether the shard has had an earlier process. Without files it then loads the newest whole snapshot, not
            `spec.snapshot`, and refuses pushes until `catch_up` gives it the counts of the earlier process.
    """

    node = ""  # id of the Ray node, in a process of its own

    def __init__(self, spec: ShardSpec, again: bool = False) -> None:
        self.spec = spec
        self.token = uuid.uuid4().hex  # identifies this process
        self.lock = threading.Lock()
        self.saving = threading.Lock()
        self.place = Place(spec.snapshots) if spec.snapshots else None
        self.memory, self.problem = self._open()
        state = self.memory.state
        sources, of = spec.demonstrations, spec.storage
        rings = DemonstrationRings(of, sources, spec.index, spec.shards) if sources else None
        self.storage = Storage(of, self.memory.rows, state, spec.seed, rings)
        self.limiter = RateLimiter(spec.limit, spec.storage.num_tasks, inserts=state["inserts"])
        self.snapshotter: Snapshotter | None = None
        self.origin = "empty"
        if self.memory.recovered:
            self.origin = "files"
            self.limiter.samples = int(state["samples"])
            # The random stream need not continue the former one, but it must not repeat it.
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
        self.refused: dict[str, int] = {}  # sequence of the newest refused push of each writer
        if self.place is not None and self.snapshotter is None:
            self.snapshotter = Snapshotter(self.place, spec.index, spec.shards)
        self.inserts_at_start = self.limiter.inserts.copy()
        self.repeated_pushes = 0

    def _open(self) -> tuple[PrivateMemory, str]:
        """Return the memory, and the problem of files that could not be taken over and were replaced ("" if none)."""
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
        """Return a problem if the shard has since used other files, as when its node was cut off; else ""."""
        if not memory.recovered or self.place is None:
            return ""
        home = self.place.home(self.spec.index)
        return "" if home in (None, memory.token) else f"{memory.folder} is out of date: the shard has left it"

    def insert(self, writer: str, sequence: int, push: Push, is_rest: bool = False) -> InsertReply:
        """Store a push unless it is early or too long. (writer, sequence) identifies it: a repeat is not stored again.

        The sequences of a writer must not decrease. A refused sequence stays refused: the writer sends the push again
        with another sequence, to this shard or another. Rows are copied; the push itself is not kept. `is_rest` means
        that the push lacks some of its writer's tasks, such as the rest of a split push. It is then never early, since
        the shard may be waiting for the tasks that it lacks.

        Raises ValueError for rows that do not fit the storage, or for a writer name that is too long.
        """
        if len(writer.encode()) > NAME_BYTES:
            raise ValueError(f"writer {writer!r} has a name of more than {NAME_BYTES} bytes")
        with self.lock:
            if sequence <= self.memory.sequences.get(writer, -1):
                self.repeated_pushes += 1
                return InsertReply(True, 0.0, self._room(dict.fromkeys(push.rows, 1)))
            for task, rows in push.rows.items():
                self.storage.check(task, rows)
            # A call may arrive late, after its sequence was refused: the push may be on another shard by now.
            if not self.caught_up or sequence <= self.refused.get(writer, -1):
                self.refused[writer] = max(sequence, self.refused.get(writer, -1))
                return InsertReply(False, MAX_WAIT_S, {})
            # If a task holds nothing, as when all its rows were dropped, the sampler may be waiting for this push.
            early, must = not self.limiter.may_insert(push.rows), not is_rest or self.limiter.is_offline
            if early and must and all(map(self.storage.content.__getitem__, push.rows)):
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
        """Return what the budget has left of each task, if that is less than the given number of transitions."""
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
        """Return as many batches as the limiter allows now, at most `most`.

        Args:
            life: the `life` of the last call of `settle`; requests with another are refused.
            totals: transitions of each task in all shards. Tasks are then drawn in proportion to the part that this
                shard holds, so that over all shards every transition of a task is equally likely, apart from
                demonstrations and their share. None: by the tasks' weights alone.
            granted: batches that another shard's limiter has granted: serve exactly this number, without counting it.
            serve: whether to return batches; False to get the grant only.
        """
        with self.lock:
            content = tuple(self.storage.content)
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
        """Return space for `count` batches."""
        return self.storage.allocate(count, self.spec.limit.batch_size)

    def _probabilities(self, content: tuple[int, ...], totals: tuple[int, ...] | None) -> np.ndarray | None:
        """Return the probability of drawing each task here; None while it cannot draw."""
        probabilities = self.spec.storage.probabilities
        held = np.array(content)
        if totals is not None:
            probabilities = probabilities * (held / np.maximum(held, totals))
        elif not held.all():
            return None
        total = probabilities.sum()
        return probabilities / total if total > 0 else None

    def _commit(self) -> None:
        """Make the state persistent, the count of samples included."""
        self.memory.state["samples"] = self.limiter.samples
        self.memory.commit()

    def settle(self, batches: int, life: Life) -> tuple[int, ...]:
        """Set the count of samples to the batches that a learner has used or received, and serve only this learner from
        now on. Return the transitions held, by task.

        Batches granted to a dead learner, or in a lost answer, can then be granted again. Earlier requests may still be
        in the queue; their `life` differs, so they are refused.
        """
        with self.lock:
            self.limiter.samples = batches * self.spec.limit.batch_size
            self.memory.state["life"] = life
            self._commit()
            return tuple(self.storage.content)

    def catch_up(self, inserts: list[int]) -> ShardStats:
        """Add the inserts of each task that the shard's earlier process had counted and this one lacks. Return `stats`.

        The transitions of these inserts may be lost. They count nevertheless: environment steps do not go backwards,
        and updates that were made for them are not made again.
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
        """Write a snapshot and return the bytes that were new. Pushes and samples go on. One snapshot at a time."""
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
        """Load the newest whole snapshot. Problems of damaged snapshots are added to `problem`."""
        assert self.place is not None
        # Listed twice: all snapshots of the first list may have been removed meanwhile, for a newer one.
        for name in (name for _ in range(2) for name in reversed(self.place.snapshots())):
            try:
                self.restore(name)
                return
            except SnapshotError as error:
                self.problem = "; ".join(filter(None, (self.problem, str(error))))
                self.storage.clear()
                self.limiter.inserts[:], self.limiter.samples = 0, 0

    def restore(self, name: str) -> None:
        """Load a snapshot, which may be of another number of shards. Raises SnapshotError, naming the file."""
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
        """Set the counts to this shard's share of the totals. The count of a new task begins at that of the slowest
        task, less the warm-up, which it still has to make."""
        spec, known = self.spec, manifests[0]["spec"]["tasks"]
        total = np.sum([manifest["counters"]["inserts"] for manifest in manifests], axis=0)
        shares = {task: share(int(count), spec.index, spec.shards) for task, count in zip(known, total, strict=True)}
        joining = max(0, min(shares.values()) - spec.limit.warmup)
        self.limiter.inserts[:] = [shares.get(task, joining) for task in spec.storage.tasks]
        batches = sum(manifest["counters"]["samples"] for manifest in manifests) // spec.limit.batch_size
        self.limiter.samples = share(batches, spec.index, spec.shards) * spec.limit.batch_size

    def close(self, remove: bool) -> None:
        """Release the files. `remove` deletes them, which is right when a checkpoint holds everything."""
        self.memory.close(remove)


def share(total: int, index: int, parts: int) -> int:
    """Return the part of `total` for `index` when it is divided over `parts` as evenly as whole numbers allow."""
    return total // parts + (index < total % parts)
