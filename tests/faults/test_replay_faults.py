"""Tests of shards in Ray processes, killed at random while actors push and a learner samples at full speed."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from replay.client.handle import ShardUnavailable
from replay.client.sampler import Sampler
from replay.client.writer import Writer
from replay.process import RayShard, start_shard
from replay.rate_limiter import RateLimit
from replay.shard import ShardSpec
from replay.snapshots.restore import segments_of
from replay.snapshots.snapshot import Place, SnapshotError
from replay.stats import ShardStats, WriterStats
from replay.store.rows import LAST, Push, Rows
from replay.store.storage import StorageSpec

SIZE, LENGTH, COPIES, CAPACITY, BATCH = 50, 8, 4, 3000, 16
STORAGE = StorageSpec(
    tasks=("a", "b"),
    observation_shapes=((SIZE,),) * 2,
    action_size=3,
    capacity=(CAPACITY,) * 2,
    segment_length=LENGTH,
    push_rows=COPIES * (LENGTH + 1),
)
LIMIT = RateLimit(samples_per_step=2.0, batch_size=BATCH, warmup=100, max_ahead=2000)
SHARED = Path("/dev/shm")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="brc-", ignore_cleanup_errors=True) as folder:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        ray.init(
            address="local",
            num_cpus=8,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=200_000_000,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()


def numbered(first: int) -> Rows:
    """Return the rows of a push. All values of a row follow from its number, so each row can be checked by itself."""
    number = np.arange(first, first + COPIES * (LENGTH + 1), dtype=np.float32)
    flags = np.zeros(len(number), np.uint8)
    flags[LENGTH :: LENGTH + 1] = LAST
    plain = np.where(flags == LAST, 0, number).astype(np.float32)
    return Rows(number[:, None] + np.arange(SIZE, dtype=np.float32) / 64, plain[:, None] * [1, 2, 3], plain, flags)


class Pusher:
    """Pushes numbered transitions of one task at full speed."""

    def __init__(self, task: int, shards: list[RayShard]) -> None:
        self.task = task
        self.writer = Writer(f"actor-{task}", shards, first=task)
        self.next = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.stopping.is_set():
            self.writer.push(Push({self.task: numbered(self.next)}, {}), self.stopping.is_set)
            self.next += COPIES * (LENGTH + 1)

    def stop(self) -> tuple[int, WriterStats]:
        """Stop, and wait until all is acknowledged. Return the first number that was not pushed, and counts."""
        self.stopping.set()
        self.thread.join()
        while self.writer.busy or self.writer.stuck:
            self.writer.poll(timeout=0.05)
        # A push that was handed over after the stop is not sent.
        return int(self.writer.counts["pushes"]) * COPIES * (LENGTH + 1), self.writer.stats()


class Learner:
    """Samples in a thread, and checks every row of every batch."""

    def __init__(self, shards: list[RayShard]) -> None:
        self.sampler = Sampler(shards, most=4, depth=3)
        self.stopping = threading.Event()
        self.failure: BaseException | None = None
        self.rows = 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            while True:
                reply = self.sampler.next(timeout=1.0)
                if reply is None or reply.batches is None:
                    if self.stopping.is_set():
                        return  # it has received all that is due
                    continue
                batches = reply.batches
                number = batches.rewards
                offsets = np.arange(SIZE, dtype=np.float32) / 64
                assert (batches.observations == number[..., None] + offsets).all(), "a malformed observation"
                assert (batches.next_observations == number[..., None] + 1 + offsets).all()
                assert (batches.actions == number[..., None] * np.array([1, 2, 3], np.float32)).all()
                assert (number % (LENGTH + 1) != LENGTH).all() and (batches.masks == 1).all()
                assert (np.bincount(batches.task_ids.ravel(), minlength=2) > 0).all()
                self.rows += batches.rewards.size
        except BaseException as error:
            self.failure = error

    def stop(self) -> None:
        """Stop when nothing more is due. Raise the failure of the thread, if any."""
        self.stopping.set()
        self.thread.join()
        if self.failure is not None:
            raise self.failure


def stats(shard: RayShard) -> ShardStats:
    """Return the stats of a shard, as soon as it answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            said: ShardStats = shard.call("stats").result(timeout=30)
            return said
        except ShardUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("place", "rounds"),
    [
        ("tmpfs", 3),
        pytest.param("tmpfs", 30, marks=pytest.mark.long),
        pytest.param("disk", 30, marks=pytest.mark.long),
    ],
)
def test_killed_shards_lose_nothing(local_ray: None, tmp_path: Path, place: str, rounds: int) -> None:
    if place == "tmpfs" and not SHARED.is_dir():
        pytest.skip("needs shared memory")
    rng = random.Random(rounds)
    with tempfile.TemporaryDirectory(prefix="brc-test-", dir=SHARED if place == "tmpfs" else tmp_path) as live:
        snapshots = str(tmp_path / "snapshots")
        specs = [
            ShardSpec(
                index=k,
                storage=STORAGE,
                limit=LIMIT,
                seed=k,
                shards=2,
                run="r",
                folder=f"{live}/shard-{k}",
                snapshots=snapshots,
            )
            for k in range(2)
        ]
        shards = [RayShard(start_shard(spec)) for spec in specs]
        for shard in shards:
            stats(shard)
        learner = Learner(shards)
        pushers = [ray.remote(Pusher).remote(task, shards) for task in range(2)]
        saves: list[Any] = []
        seconds = []
        for number in range(rounds):
            time.sleep(rng.uniform(0.1, 1.0))  # the kill comes at a random moment
            if rng.random() < 0.5:  # the shard then dies while it writes a snapshot
                saves = [shard.call("save", f"{number:03d}") for shard in shards]
                time.sleep(rng.uniform(0.0, 0.01))
            victim = rng.choice(shards)
            pid = stats(victim).pid
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            while stats(victim).pid == pid:
                time.sleep(0.01)
            seconds.append(time.monotonic() - killed)
            assert learner.failure is None, learner.failure
        ends = ray.get([pusher.stop.remote() for pusher in pushers])
        learner.stop()
        after = [stats(shard) for shard in shards]
        for save in saves:
            if save.done():
                try_save(save)
        assert sum(said.repeated_pushes for said in after) <= sum(end[1].lost for end in ends)
        check_content(shards, snapshots, [end[0] for end in ends])
        check_limiters(after, learner, [end[0] for end in ends])
        assert all(said.origin == "files" or said.pid for said in after)
        print(
            f"{place}: {rounds} kills, back after {np.mean(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}); "
            f"{sum(end[1].pushes for end in ends)} pushes, of which {sum(end[1].lost for end in ends)} were lost "
            f"sight of; {learner.rows} rows sampled"
        )
        for shard in shards:
            ray.kill(shard.actor)


def try_save(save: Any) -> None:
    with suppress(ShardUnavailable):  # the shard may have died while it wrote
        save.result(0.0)


def check_content(shards: list[RayShard], url: str, ends: list[int]) -> None:
    """Check that shards hold every acknowledged transition byte for byte and once. Missing ones must be older than all
    that a full shard holds."""
    for shard in shards:
        shard.call("save", "zzz").result(timeout=60)
    place = Place(url)
    for name in place.snapshots():
        place.verify(name)
    with pytest.raises(SnapshotError, match="missing"):
        place.manifest("never", 0)
    for task, end in enumerate(ends):
        found: Counter[int] = Counter()
        oldest = []
        for index in range(len(shards)):
            manifest = place.manifest("zzz", index)
            numbers = []
            for _, rows in segments_of(place, manifest, task):
                first = int(rows.rewards[0])
                expected = numbered(first - first % (COPIES * (LENGTH + 1)))
                at = first % (COPIES * (LENGTH + 1))
                for mine, theirs in zip(rows, expected, strict=True):
                    np.testing.assert_array_equal(mine, theirs[at : at + LENGTH + 1].astype(mine.dtype))
                numbers += list(range(first, first + LENGTH))
            found.update(numbers)
            full = len(numbers) >= CAPACITY
            oldest.append(min(numbers) if full else -1)
        assert max(found.values()) == 1, "stored twice"
        assert max(found) < end, "never pushed, or not acknowledged"
        pushed = {n for n in range(end) if n % (LENGTH + 1) != LENGTH}
        missing = pushed - found.keys()
        # A push that waited for its shard may arrive after the next push of its writer, but not after a later one.
        assert max(missing, default=-1) < max(oldest) + 2 * COPIES * (LENGTH + 1), "lost within the capacity"
        assert len(found) >= min(len(pushed), CAPACITY)


def check_limiters(after: list[ShardStats], learner: Learner, ends: list[int]) -> None:
    """Check that all inserts are counted, that no shard granted more samples than are due, and that all granted samples
    arrived, except for those of requests in flight."""
    inserts = np.sum([said.inserts_by_task for said in after], axis=0)
    assert inserts.tolist() == [end // (LENGTH + 1) * LENGTH for end in ends]
    for index, said in enumerate(after):
        due = max(0, min(said.inserts_by_task) - LIMIT.warmup) * LIMIT.samples_per_step
        assert learner.sampler.received[index] * BATCH <= said.limiter.samples <= due
        in_flight = 4 * BATCH * (learner.sampler.depth + 1)
        assert said.limiter.samples - learner.sampler.received[index] * BATCH <= in_flight
    assert learner.rows == sum(learner.sampler.received) * BATCH
