"""Measures how fast replay stores and samples, against torch.index_select, memcpy, two libraries, and Ray's limits.

Transitions are a dog's: observations of 223 and actions of 38 floats, about 2 kB each with the next observation. Sides
run alternately in one process, with one thread. Cases:

sample-vs-index-select  the kernel and torch.index_select copy the same random rows of the same array; share_of_memcpy
                        is the share of the speed of a contiguous copy of as many bytes
sample-vs-best-peer     a whole batch is drawn and copied. Ours copies into space that is used again, as a shard does;
                        TorchRL and cpprb are used as documented. Theirs is the faster of the two in each repeat
insert-vs-best-peer     pushes of 16 segments of 32 transitions
pull                    a learner's sampler and a shard in two processes, two requests in flight, batches copied out;
                        theirs is an actor that returns a ready array, pulled in the same way
push                    a writer and a shard; theirs is an actor that does nothing with the same pushes
latency-...             p50 and p99 of one batch from a shard in another process: alone, under pushes at full speed,
                        and during a snapshot; ratio is p99 alone over p99 of the case
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
import torch
import tyro

from benchmarks.replay_peers import cpprb_buffer, package_version, torchrl_buffer
from benchmarks.report import Result, compare
from replay.client.sampler import Sampler
from replay.client.writer import Writer
from replay.process import THREADS, RayShard, ShardProcess
from replay.rate_limiter import RateLimit
from replay.shard import ShardSpec
from replay.snapshots.snapshot import Snapshotter
from replay.store.gather import KERNEL, Piece, gather
from replay.store.locations import shared_folder
from replay.store.memory import PrivateMemory
from replay.store.rows import LAST, Push, Rows
from replay.store.storage import Storage, StorageSpec

OBSERVATION, ACTION, LENGTH, SEGMENTS = 223, 38, 32, 16
BATCH = 1024
WINDOW = 4 * (1 + ACTION + 2 * OBSERVATION)  # bytes of a transition
Sides = dict[str, Callable[[], object]]


def main(
    cases: tuple[str, ...] = ("sample", "peers", "processes"),
    rows: int = 1_000_000,
    calls: int = 50,
    repeats: int = 9,
    batches: int = 16,
) -> None:
    """Compare the rates of replay with the rates of others.

    Args:
        cases: sample (against index_select), peers (libraries), processes (pull, push, latency over Ray).
        rows: transitions stored.
        calls: calls of each side in a repeat.
        repeats: repeats of each side.
        batches: batches of 1024 that a request pulls.
    """
    torch.set_num_threads(1)
    if "sample" in cases:
        sample_rows(rows, calls, repeats)
    if "peers" in cases:
        against_peers(rows, calls, repeats)
    if "processes" in cases:
        between_processes(rows, calls, repeats, batches)


def spec(rows: int) -> StorageSpec:
    return StorageSpec(
        tasks=("dog",),
        observation_shapes=((OBSERVATION,),),
        action_size=ACTION,
        capacity=(rows,),
        segment_length=LENGTH,
        push_rows=SEGMENTS * (LENGTH + 1),
    )


def push_of(seed: int) -> Push:
    rng = np.random.default_rng(seed)
    count = SEGMENTS * (LENGTH + 1)
    flags = np.zeros(count, np.uint8)
    flags[LENGTH :: LENGTH + 1] = LAST
    observations = rng.random((count, OBSERVATION), np.float32)
    return Push({0: Rows(observations, rng.random((count, ACTION), np.float32), observations[:, 0], flags)}, {})


def filled(rows: int) -> Storage:
    of = spec(rows)
    memory = PrivateMemory(of.nbytes, of.state_dtype())
    made, push = Storage(of, memory.rows, memory.state, seed=0), push_of(0)
    while made.rings[0].tail == 0:
        made.append(push)
    return made


def timed(sides: Sides, calls: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of a call, median over `calls` in a row, for each repeat. Sides take turns in each repeat."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, call in sides.items():
            seconds = []
            for _ in range(calls):
                started = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - started)
            found[name].append(median(seconds))
    return found


def sample_rows(rows: int, calls: int, repeats: int) -> None:
    ring = filled(rows).rings[0]
    # Each row of this matrix is a row of the ring and the one after it, so rows overlap.
    floats = torch.from_numpy(ring.packed.reshape(-1).view(np.float32))
    width = ring.stride // 4
    window = torch.as_strided(floats, (ring.rows - 1, WINDOW // 4), (width, 1))
    source, rng = window.numpy(), np.random.default_rng(0)
    ours, theirs, plain = (np.empty((BATCH, WINDOW // 4), np.float32) for _ in range(3))
    out, place = torch.from_numpy(theirs), np.arange(BATCH)
    copied = np.ones_like(plain)
    index = rng.integers(ring.rows - 1, size=(calls * repeats, 2, BATCH))
    turns = {name: iter(index[:, side]) for side, name in enumerate(("kernel", "index_select"))}
    sides: Sides = {
        "kernel": lambda: gather([Piece(source, next(turns["kernel"]), ours)], place),
        "index_select": lambda: torch.index_select(window, 0, torch.from_numpy(next(turns["index_select"])), out=out),
        "memcpy": lambda: np.copyto(plain, copied),
    }
    found = timed(sides, calls, repeats)
    gather([Piece(source, index[-1, 1], ours)], place)
    assert (ours == theirs).all(), "both sides copied the same"
    rates = {name: [BATCH / seconds for seconds in taken] for name, taken in found.items()}
    result = compare("replay", "sample-vs-index-select", "rows/s", rates["kernel"], rates["index_select"])
    result.print(
        kernel="C" if KERNEL is not None else "numpy",
        bytes_per_row=WINDOW,
        rows=rows,
        gigabytes_per_s=result.ours * WINDOW / 1e9,
        microseconds={name: 1e6 * median(taken) for name, taken in found.items()},
        share_of_memcpy=result.ours / median(rates["memcpy"]),
    )


def against_peers(rows: int, calls: int, repeats: int) -> None:
    missing = [name for name in ("torchrl", "cpprb") if find_spec(name) is None]
    if missing:
        raise SystemExit(f"benchmarks.replay: {' and '.join(missing)} missing; pip install -e '.[benchmark]'")
    made, push, lock = filled(rows), push_of(1), threading.Lock()
    out = made.allocate(1, BATCH)
    torchrl_sides, cpprb_sides = torchrl_buffer(rows, BATCH, push), cpprb_buffer(rows, BATCH, push)
    for case, unit, ours, theirs, count in (
        ("sample-vs-best-peer", "rows/s", lambda: made.sample(1, BATCH, lock, out), 0, BATCH),
        ("insert-vs-best-peer", "rows/s", lambda: made.append(push), 1, SEGMENTS * LENGTH),
    ):
        sides = {"ours": ours, "torchrl": torchrl_sides[theirs], "cpprb": cpprb_sides[theirs]}
        found = timed(sides, calls, repeats)
        rates = {name: [count / seconds for seconds in taken] for name, taken in found.items()}
        best = [max(pair) for pair in zip(rates["torchrl"], rates["cpprb"], strict=True)]
        compare("replay", case, unit, rates["ours"], best).print(
            microseconds={name: 1e6 * median(taken) for name, taken in found.items()},
            peers={name: package_version(name) for name in ("torchrl", "tensordict", "cpprb")},
            rows=rows,
        )


class ForgetfulShard(ShardProcess):
    """A shard that can be made to write a whole snapshot again."""

    def forget_snapshots(self) -> None:
        assert self.place is not None
        self.snapshotter = Snapshotter(self.place, 0, 1)


class Ready:
    """An actor whose answer is ready, and that accepts every push."""

    def __init__(self, nbytes: int) -> None:
        self.array = np.ones(nbytes, np.uint8)

    def pull(self) -> np.ndarray:
        return self.array

    def push(self, writer: str, sequence: int, push: Push) -> bool:
        return True


class Pusher:
    """Pushes at full speed in a thread, while this is switched on."""

    def __init__(self, name: str, shard: RayShard) -> None:
        self.writer, self.push, self.working = Writer(name, [shard]), push_of(2), threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self.working.wait()
            self.writer.push(self.push)

    def work(self, on: bool) -> int:
        """Switch pushing on or off. Return the number of pushes made so far."""
        if on:
            self.working.set()
        else:
            self.working.clear()
        return int(self.writer.counts["pushes"])


def between_processes(rows: int, calls: int, repeats: int, batches: int) -> None:
    reply_bytes = batches * BATCH * (WINDOW + 4 + 8)
    folder = Path(tempfile.mkdtemp(prefix="brc-bench-"))
    live = shared_folder().parent if shared_folder().parent.is_dir() else folder
    live = Path(tempfile.mkdtemp(prefix="brc-bench-", dir=live))
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=max(500_000_000, 8 * reply_bytes),
        _temp_dir=str(folder / "ray"),
    )
    try:
        limit = RateLimit(samples_per_step=1e6, batch_size=BATCH, warmup=1, max_ahead=10**12)
        of = ShardSpec(
            index=0,
            storage=spec(rows),
            limit=limit,
            seed=0,
            run="bench",
            folder=str(live / "0"),
            snapshots=str(folder / "snapshots"),
        )
        shard = RayShard(ray.remote(**THREADS, num_cpus=0)(ForgetfulShard).remote(of))
        ready = ray.remote(Ready).options(max_concurrency=4, num_cpus=0).remote(reply_bytes)
        writer = Writer("filler", [shard])
        for _ in range(rows // (SEGMENTS * LENGTH) + 2):
            writer.push(push_of(0))
        writer.flush()
        pull(shard, ready, batches, reply_bytes, calls, repeats)
        pushes(shard, ready, calls, repeats)
        latencies(shard, calls, repeats)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(live, ignore_errors=True)


def pull(shard: RayShard, ready: Any, batches: int, reply_bytes: int, calls: int, repeats: int) -> None:
    sampler = Sampler([shard], most=batches, depth=2)
    of = spec(1)
    space = Storage(of, np.zeros(of.nbytes, np.uint8), np.zeros(1, of.state_dtype())[0], 0).allocate(batches, BATCH)
    buffer = np.ones(reply_bytes, np.uint8)
    in_flight: deque[ray.ObjectRef] = deque()

    def ours() -> float:
        started, before = time.perf_counter(), sampler.counts["bytes"]
        for _ in range(calls):
            assert sampler.next(timeout=60.0, into=space) is not None
        found: float = (sampler.counts["bytes"] - before) / (time.perf_counter() - started) / 1e9
        return found

    def theirs() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            while len(in_flight) < 2:
                in_flight.append(ready.pull.remote())
            np.copyto(buffer, ray.get(in_flight.popleft()))
        return calls * reply_bytes / (time.perf_counter() - started) / 1e9

    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(repeats)]
    result = compare("replay", "pull", "GB/s", [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    result.print(megabytes_per_reply=reply_bytes / 1e6, in_flight=2, rows_per_s=result.ours * 1e9 / (WINDOW + 12))


def pushes(shard: RayShard, ready: Any, calls: int, repeats: int) -> None:
    push = push_of(3)
    writer = Writer("bench", [shard])
    nbytes = push.rows[0].nbytes

    def ours() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            writer.push(push)
        writer.flush()
        return calls * nbytes / (time.perf_counter() - started) / 1e9

    def theirs() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            ray.get(ready.push.remote("bench", 0, push))
        return calls * nbytes / (time.perf_counter() - started) / 1e9

    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(repeats)]
    result = compare("replay", "push", "GB/s", [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    rate = result.ours * 1e9 / nbytes
    result.print(kilobytes_per_push=nbytes / 1e3, pushes_per_s=rate, transitions_per_s=rate * SEGMENTS * LENGTH)


def latencies(shard: RayShard, calls: int, repeats: int) -> None:
    sampler = Sampler([shard], most=1, depth=1, life=1)
    pusher = ray.remote(Pusher).options(num_cpus=0, max_concurrency=2).remote("load", shard)
    pushed: list[float] = []
    written: list[int] = []
    numbers = itertools.count()

    def sampled(least_s: float = 0.0, until: Callable[[], bool] = lambda: True) -> list[float]:
        seconds: list[float] = []
        started = time.perf_counter()
        while len(seconds) < 4 * calls or time.perf_counter() - started < least_s or not until():
            asked = time.perf_counter()
            assert sampler.next(timeout=60.0) is not None
            seconds.append(time.perf_counter() - asked)
        return seconds

    def under_pushes() -> list[float]:
        before, started = ray.get(pusher.work.remote(True)), time.perf_counter()
        seconds = sampled()
        pushed.append((ray.get(pusher.work.remote(False)) - before) / (time.perf_counter() - started))
        return seconds

    def during_snapshot() -> list[float]:
        ray.get(shard.actor.forget_snapshots.remote())
        saving = shard.actor.save.remote(f"{next(numbers):03d}")
        seconds = sampled(until=lambda: bool(ray.wait([saving], timeout=0)[0]))
        written.append(ray.get(saving))
        return seconds

    found: dict[str, list[list[float]]] = {"alone": [], "pushes": [], "snapshot": []}
    for _ in range(repeats):
        found["alone"].append(sampled())
        found["pushes"].append(under_pushes())
        found["snapshot"].append(during_snapshot())
    p99 = {name: [quantile(seconds, 99) for seconds in series] for name, series in found.items()}
    for name, series in found.items():
        ratios = [alone / this for alone, this in zip(p99["alone"], p99[name], strict=True)]
        values = [1e3 * value for value in p99[name]]
        alone = 1e3 * median(p99["alone"])
        case = "latency-alone" if name == "alone" else f"latency-under-{name}"
        result = Result("replay", case, "ms p99", median(values), alone, median(ratios), (min(ratios), max(ratios)))
        extra: dict[str, Any] = {"p50_ms": 1e3 * median(quantile(seconds, 50) for seconds in series)}
        extra["samples"] = sum(map(len, series))
        if name == "pushes":
            extra["transitions_per_s"] = median(pushed) * SEGMENTS * LENGTH
        if name == "snapshot":
            extra["snapshot_bytes"] = median(written)
        result.print(**extra)


def quantile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent))


if __name__ == "__main__":
    tyro.cli(main)
