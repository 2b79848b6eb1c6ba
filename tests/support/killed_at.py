"""`python -m tests.support.killed_at FOLDER KIND`: kill a shard's process at every line that it runs.

For n = 1, 2, 3 ... a process opens the shard's files, and is killed with SIGKILL at the n-th line of the replay package
that it runs, until a process reaches its end. After each death the files are opened again. They must hold every
acknowledged push exactly once, and every other push completely or not at all. The limiter must have counted exactly
the pushes that are there. Prints the number of deaths.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from replay.rate_limiter import RateLimit
from replay.shard import Shard, ShardSpec
from replay.snapshots.snapshot import Place
from tests.support.streams import held, push, spec, transitions

PACKAGE = str(Path(sys.modules[Shard.__module__].__file__ or "").parent)
LENGTHS = (5, 3)
CAPACITY = 60


def shard_spec(folder: Path) -> ShardSpec:
    """Return the spec of a shard so small that it is overwritten many times."""
    storage = spec(2, CAPACITY, push_rows=12)
    limit = RateLimit(samples_per_step=4, batch_size=4, warmup=5, max_ahead=10**9)
    return ShardSpec(
        index=0,
        storage=storage,
        limit=limit,
        seed=0,
        run="r",
        folder=str(folder / "live"),
        snapshots=str(folder / "snapshots"),
    )


def main(folder: Path, kind: str) -> None:
    sequence, samples, acknowledged = 0, 0, set[int]()
    for line in range(1, 5000):
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            work(shard_spec(folder), kind, sequence, line, tell)
        os.close(tell)
        _, status = os.waitpid(child, 0)
        with os.fdopen(told) as stream:
            said = stream.read().split()
        acknowledged |= {int(word) for word in said if word.isdigit()}
        again = Shard(shard_spec(folder))
        check(again, sequence, acknowledged)
        samples = check_limiter(again, samples)
        for unsure in (sequence, sequence + 1):  # repeat both pushes, as a writer does
            assert again.insert("a", unsure, numbered(unsure)).accepted
            acknowledged.add(unsure)
        check(again, sequence, acknowledged)
        again.close(remove=False)
        sequence += 2
        if kind == "snapshot":
            place = Place(again.spec.snapshots)
            whole = place.snapshots()
            place.verify(whole[-1]) if whole else None
            assert ("saved" in said) <= (f"{line:06d}" in whole)
            if len(whole) > 3:
                place.prune(whole[-2:])
        if status == 0:
            print(line - 1)
            return
        assert os.WTERMSIG(status) == signal.SIGKILL, f"the process failed at line {line}"
    raise AssertionError("never came to an end")


def work(of: ShardSpec, kind: str, sequence: int, line: int, tell: int) -> None:
    """Push, sample and push, or save a snapshot. The process is killed at the n-th line, n being `line`."""
    one = Shard(of)
    left = line

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    if kind == "snapshot":
        one.save(f"{line:06d}")
        os.write(tell, b"saved ")
    else:
        assert one.insert("a", sequence, numbered(sequence)).accepted
        os.write(tell, f"{sequence} ".encode())
        one.settle(int(one.limiter.samples) // 4, (0, 1))
        assert one.sample(1, (0, 1)).batches is not None or sequence < 2
        assert one.insert("a", sequence + 1, numbered(sequence + 1)).accepted
        os.write(tell, f"{sequence + 1} ".encode())
    sys.settrace(None)
    os._exit(0)


def numbered(sequence: int) -> Any:
    return push(1 + 20 * sequence, *LENGTHS)


def check(one: Shard, sequence: int, acknowledged: set[int]) -> None:
    assert one.problem == "" and (one.origin == "files" or sequence == 0), (one.problem, one.origin)
    for ring in one.storage.rings:
        found = [transition.reward for transition in transitions(held(ring))]
        assert found == sorted(set(found)), "twice, or out of order"
        pushes = sorted({int(number - 1) // 20 for number in found})
        assert pushes == list(range(pushes[0], pushes[-1] + 1)) if pushes else not acknowledged
        whole = [1.0 + 20 * k + i for k in pushes for i in (0, 1, 2, 3, 4, 6, 7, 8)]
        assert whole[-len(found) :] == found, "a push that is there in part"
        assert set(
            range(max(0, max(acknowledged, default=-1) - CAPACITY // 8 + 2), max(acknowledged, default=-1) + 1)
        ) <= {*pushes}, "one that was acknowledged is missing"
        assert len(found) == ring.transitions >= min(CAPACITY, 8 * len(acknowledged))
    stored = (max(pushes) + 1) * 8 if pushes else 0
    assert one.limiter.inserts.tolist() == [stored, stored], "counted what is not there, or the reverse"


def check_limiter(one: Shard, before: int) -> int:
    """Check that no granted sample is forgotten, and that never more are granted than are due. Return their number."""
    assert one.limiter.samples >= before
    assert one.limiter.samples <= max(0, (int(one.limiter.inserts.min()) - 5) * 4)
    return one.limiter.samples


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
