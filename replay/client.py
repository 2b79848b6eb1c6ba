"""The two sides that talk to replay shards: the actors' Writer and the learner's Sampler.

Both see a shard as something on which a method can be called and whose answer arrives later. In one process the answer
is there at once (LocalShard); across processes it is a Ray future (replay/ray_shard.py).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from replay.rows import Push, split
from replay.shard import InsertReply, SampleReply, Shard


class Future(Protocol):
    def done(self) -> bool: ...

    def result(self, timeout: float | None = None) -> Any:
        """The answer. Raises TimeoutError after `timeout` seconds, and whatever the call raised."""


class ShardHandle(Protocol):
    def call(self, method: str, *arguments: Any) -> Future: ...


class Answered:
    """A future whose answer is known."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:
        return self.answer


class LocalShard:
    """A shard in this process."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard

    def call(self, method: str, *arguments: Any) -> Answered:
        return Answered(getattr(self.shard, method)(*arguments))


class Writer:
    """Pushes to shards in turn, one push in flight; a second waits until the first is stored. Not thread-safe.

    A shard that refuses a push is passed over. Writers that each insisted on one shard could wait for each other: every
    shard samples at the pace of its slowest task, and that task's writer might be waiting elsewhere.

    Args:
        name: unique among all writers that ever lived in the run; with a sequence number it names a push.
        first: the shard to begin with, so that many writers do not all begin with the same one.
    """

    def __init__(self, name: str, shards: Sequence[ShardHandle], first: int = 0) -> None:
        self.name = name
        self.shards = shards
        self.turn = first
        self.sequence = 0
        self.pushing: Push | None = None
        self.future: Future | None = None
        self.is_rest = False  # whether the push in flight is what a shard had no budget for
        self.refused: list[float] = []  # the waits that shards asked for, since one was tried that did not
        self.retry_at = 0.0
        self.sent_at = 0.0
        self.full: dict[int, set[int]] = {}  # task -> shards whose budget for it is full
        self.counts = {"pushes": 0, "transitions": 0, "bytes": 0, "refusals": 0, "push_s": 0.0, "wait_s": 0.0}

    @property
    def finished(self) -> bool:
        """Whether every task that was ever pushed has met a full budget on every shard."""
        return bool(self.full) and all(len(shards) == len(self.shards) for shards in self.full.values())

    def push(self, push: Push, stopped: Callable[[], bool] = lambda: False) -> None:
        """Hand over a push; returns when the one before it is stored, or early when `stopped()` says so."""
        self.flush(stopped)
        if stopped():
            return
        self.pushing = push
        self.sent_at = time.monotonic()
        for task in push.rows:
            self.full.setdefault(task, set())
        self._send(is_rest=False)
        while self.future is not None and self.future.done():
            self.poll()

    def flush(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until nothing is in flight."""
        since = time.monotonic()
        while self.pushing is not None and not stopped():
            self.poll(timeout=0.1)
            now = time.monotonic()
            self.counts["wait_s"] += now - since  # as it passes: a report may be made meanwhile
            since = now

    def poll(self, timeout: float = 0.0) -> None:
        """Move the push in flight along, waiting up to `timeout` seconds for its answer or its next try."""
        if self.pushing is None:
            return
        if self.future is None:
            pause = self.retry_at - time.monotonic()
            if pause > timeout:
                time.sleep(timeout)
                return
            time.sleep(max(0.0, pause))
            self.future = self._call()
        try:
            reply: InsertReply = self.future.result(timeout)
        except TimeoutError:
            return
        self.future = None
        if not reply.accepted:
            self._refused(reply.wait_s)
            return
        self._accepted(self.pushing, reply)

    def _send(self, is_rest: bool) -> None:
        self.sequence += 1
        self.is_rest = is_rest
        self.future = self._call()

    def _call(self) -> Future:
        return self.shards[self.turn].call("insert", self.name, self.sequence, self.pushing, self.is_rest)

    def _refused(self, wait_s: float) -> None:
        """The same push, under the same number, to the next shard: at once, or after a wait when all have refused."""
        self.counts["refusals"] += 1
        self.turn = (self.turn + 1) % len(self.shards)
        self.refused.append(wait_s)
        if len(self.refused) < len(self.shards):
            self.future = self._call()
        else:
            self.retry_at = time.monotonic() + min(self.refused)
            self.refused = []

    def _accepted(self, push: Push, reply: InsertReply) -> None:
        self.refused = []
        self.counts["pushes"] += 1
        self.counts["bytes"] += sum(rows.nbytes for rows in push.rows.values())
        self.counts["push_s"] += time.monotonic() - self.sent_at
        self.counts["transitions"] += push.transitions
        rest = {}
        for task, stored in reply.left_over.items():
            self.full[task].add(self.turn)
            left = split(push.rows[task], stored)[1] if stored else push.rows[task]
            if left is not None:
                self.counts["transitions"] -= left.transitions
                if len(self.full[task]) < len(self.shards):
                    rest[task] = left
        self.turn = (self.turn + 1) % len(self.shards)
        self.pushing = Push(rest, {}) if rest else None
        if self.pushing is not None:
            self._send(is_rest=True)

    def stats(self) -> dict[str, Any]:
        return dict(self.counts)

    def state(self) -> dict[str, Any]:
        """For a lock-step checkpoint, taken when nothing is in flight."""
        if self.pushing is not None:
            raise RuntimeError("a writer's state can be taken only when nothing is in flight")
        return {
            "turn": self.turn,
            "sequence": self.sequence,
            "full": {str(task): sorted(shards) for task, shards in self.full.items()},
            "counts": dict(self.counts),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.turn, self.sequence = state["turn"], state["sequence"]
        self.full = {int(task): set(shards) for task, shards in state["full"].items()}
        self.counts = dict(state["counts"])


class Sampler:
    """Asks shards in turn for batches and keeps `depth` requests in flight while the caller computes.

    Args:
        most: batches that one request may bring.
        depth: requests in flight while `next` waits; one less while the caller computes.
        life: counts the samplers of a run, one after another; shards refuse what an earlier one has asked for.
    """

    def __init__(self, shards: Sequence[ShardHandle], most: int, depth: int, life: int = 0) -> None:
        self.shards = shards
        self.most = most
        self.depth = depth
        self.life = life
        self.turn = 0
        self.in_flight: deque[tuple[int, Future]] = deque()
        self.not_before = [0.0] * len(shards)
        self.counts = {"requests": 0, "refusals": 0, "batches": 0, "wait_s": 0.0}

    def take_due(self) -> SampleReply | None:
        """Batches of the first shard, in turn, that has any due now; None when none has. For lock-step execution.

        Waits that shards asked for are not observed, so the answer does not depend on time.
        """
        for _ in self.shards:
            reply: SampleReply = self.shards[self.turn].call("sample", self.most, self.life).result()
            self.turn = (self.turn + 1) % len(self.shards)
            self.counts["requests"] += 1
            if reply.batches is not None:
                self.counts["batches"] += reply.batches.num_batches
                return reply
            self.counts["refusals"] += 1
        return None

    def next(self, timeout: float) -> SampleReply | None:
        """The next reply that has batches, or None when none came within `timeout` seconds."""
        started = time.monotonic()
        while True:
            self._request()
            reply = self._take(max(0.0, started + timeout - time.monotonic()))
            now = time.monotonic()
            if reply is not None and reply.batches is not None:
                self.counts["batches"] += reply.batches.num_batches
                self.counts["wait_s"] += now - started
                return reply
            if now - started >= timeout:
                self.counts["wait_s"] += now - started
                return None

    def _request(self) -> None:
        now = time.monotonic()
        for _ in range(len(self.shards)):
            if len(self.in_flight) >= self.depth:
                return
            while len(self.in_flight) < self.depth and self.not_before[self.turn] <= now:
                self.in_flight.append((self.turn, self.shards[self.turn].call("sample", self.most, self.life)))
                self.counts["requests"] += 1
                if len(self.shards) > 1:
                    break
            self.turn = (self.turn + 1) % len(self.shards)

    def _take(self, timeout: float) -> SampleReply | None:
        if not self.in_flight:
            pause = min(self.not_before) - time.monotonic()
            time.sleep(max(0.0, min(timeout, pause)))
            return None
        index, future = self.in_flight[0]
        try:
            reply: SampleReply = future.result(timeout)
        except TimeoutError:
            return None
        self.in_flight.popleft()
        if reply.batches is None:
            self.counts["refusals"] += 1
            self.not_before[index] = time.monotonic() + reply.wait_s
        return reply

    def stats(self) -> dict[str, Any]:
        return dict(self.counts)
