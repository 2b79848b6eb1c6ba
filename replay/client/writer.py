"""The actors' client of replay. Every push is stored exactly once, even if shards die and restart."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from replay.client.handle import Future, ShardHandle, ShardUnavailable
from replay.shard import InsertReply
from replay.stats import WriterStats
from replay.store.rows import Push, split

RETRY_S = 0.2  # seconds between tries of a shard that is unreachable
OVERDUE_S = 5.0  # seconds without an answer after which pushes go to other shards
DEADLINE_S = 600.0  # seconds without an answer after which the writer fails, and with it the run


@dataclass
class Parcel:
    """A push that is being sent to a shard. It keeps its sequence at that shard."""

    push: Push
    is_rest: bool
    shard: int
    sequence: int
    future: Future | None
    sent_at: float
    lost_at: float = 0.0
    retry_at: float = 0.0


class Writer:
    """Pushes to shards in turn, with one push in flight; the next waits until it is stored. Not thread-safe.

    If a shard refuses a push, the writer tries the next shard. Writers that each kept to one shard could block each
    other: a shard samples at the pace of its slowest task, and the writer of that task might wait at another shard.

    A push whose shard does not answer may or may not be stored, so it must not go to another shard. The writer keeps it
    and sends it to the same shard, with the same sequence, until that shard answers. Other pushes go to other shards
    meanwhile.

    Args:
        name: unique among all writers ever in the run, at most 48 bytes; (name, sequence) identifies a push.
        first: the shard to begin with, so that writers do not all begin with the same shard.
    """

    def __init__(self, name: str, shards: Sequence[ShardHandle], first: int = 0) -> None:
        self.name = name
        self.shards = shards
        self.turn = first
        self.sequence = 0
        self.tasks: frozenset[int] = frozenset()  # the tasks that it serves, as far as known
        self.pending: deque[tuple[Push, bool]] = deque()  # (push to be sent, whether it lacks some of the tasks)
        self.flying: Parcel | None = None
        self.stuck: dict[int, Parcel] = {}  # by shard, the push that it has not answered
        self.refused: list[float] = []  # waits that shards asked for, since the last accepted push or wait
        self.retry_at = 0.0
        self.full: dict[int, set[int]] = {}  # task -> shards whose budget for it is full
        self.counts: dict[str, Any] = asdict(WriterStats())

    @property
    def finished(self) -> bool:
        """Whether every shard has a full budget for every served task, and every push has been answered."""
        met = bool(self.full) and all(len(shards) == len(self.shards) for shards in self.full.values())
        return met and not self.stuck and not self.busy

    @property
    def busy(self) -> bool:
        """Whether a push is to be sent, or is in flight to a shard that is reachable."""
        return bool(self.pending) or self.flying is not None

    def serve(self, tasks: Iterable[int]) -> None:
        """Declare the tasks to be pushed. The writer is finished when the budgets of all these tasks are full. A push
        that lacks some of them is never early, since the shard may be waiting for those that it lacks."""
        self.tasks = frozenset(tasks)
        self.full |= {task: set() for task in self.tasks}

    def push(self, push: Push, stopped: Callable[[], bool] = lambda: False) -> None:
        """Send a push. Returns when the previous push is stored, or early when `stopped()` is true."""
        self.flush(stopped)
        if stopped():
            return
        for task in push.rows:
            self.full.setdefault(task, set())
        self.pending.append((push, not self.tasks <= push.rows.keys()))
        while self.busy and self.poll():
            pass

    def flush(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until nothing is in flight, except pushes that are kept for unreachable shards."""
        since = time.monotonic()
        while self.busy and not stopped():
            self.poll(timeout=0.1)
            now = time.monotonic()
            self.counts["wait_s"] += now - since  # updated in each round: a report may be made during the wait
            since = now

    def poll(self, timeout: float = 0.0) -> bool:
        """Make progress: send, or wait up to `timeout` seconds for an answer or for the time of the next try. Return
        whether there was an answer."""
        for parcel in list(self.stuck.values()):
            self._retry(parcel)
        if self.flying is None and not self._send(timeout):
            return False
        flying = self.flying
        assert flying is not None and flying.future is not None
        try:
            reply: InsertReply = flying.future.result(timeout)
        except TimeoutError:
            if time.monotonic() - flying.sent_at > OVERDUE_S and len(self.shards) > 1:
                self._set_aside(flying)
            return False
        except ShardUnavailable:
            flying.future = None
            self._set_aside(flying)
            return True
        self.flying = None
        self._answered(flying, reply)
        return True

    def _send(self, timeout: float) -> bool:
        """Send the next push if it is time and a shard can take it. Return whether it was sent."""
        pause = self.retry_at - time.monotonic()
        if not self.pending:
            return False
        if pause > 0:
            time.sleep(min(pause, timeout))
            if pause > timeout:
                return False
        push, is_rest = self.pending[0]
        with_room = [s for s in range(len(self.shards)) if any(s not in self.full[task] for task in push.rows)]
        if not with_room:
            self.pending.popleft()  # all budgets for its tasks are full: the push is dropped
            return False
        in_reach = [s for s in with_room if s not in self.stuck]
        if not in_reach:
            time.sleep(min(timeout, RETRY_S))
            return False
        self.pending.popleft()
        shard = min(in_reach, key=lambda s: (s - self.turn) % len(self.shards))
        self._fly(push, is_rest, shard)
        return True

    def _fly(self, push: Push, is_rest: bool, shard: int) -> None:
        self.sequence += 1
        self.flying = Parcel(push, is_rest, shard, self.sequence, None, time.monotonic())
        self._call(self.flying)

    def _call(self, parcel: Parcel) -> None:
        handle = self.shards[parcel.shard]
        parcel.future = handle.call("insert", self.name, parcel.sequence, parcel.push, parcel.is_rest)

    def _set_aside(self, parcel: Parcel) -> None:
        self.counts["lost"] += 1
        parcel.lost_at = time.monotonic()
        parcel.retry_at = parcel.lost_at + RETRY_S
        self.stuck[parcel.shard] = parcel
        self.flying = None
        self.turn = (parcel.shard + 1) % len(self.shards)

    def _retry(self, parcel: Parcel) -> None:
        """Send a stuck push again, or process its answer. Never waits."""
        now = time.monotonic()
        if now - parcel.lost_at > DEADLINE_S:
            raise RuntimeError(f"replay shard {parcel.shard} has not answered for {DEADLINE_S:.0f} s")
        if parcel.future is None:
            if now >= parcel.retry_at:
                self._call(parcel)
            return
        if not parcel.future.done():
            return
        try:
            reply: InsertReply = parcel.future.result(RETRY_S)
        except ShardUnavailable:
            parcel.future, parcel.retry_at = None, now + RETRY_S
            return
        del self.stuck[parcel.shard]
        self._answered(parcel, reply)

    def _answered(self, parcel: Parcel, reply: InsertReply) -> None:
        if reply.accepted:
            self._accepted(parcel, reply)
        elif reply.room:
            self._split(parcel, reply.room)
        else:
            self._refused(parcel, reply.wait_s)

    def _accepted(self, parcel: Parcel, reply: InsertReply) -> None:
        self.refused = []
        self.counts["pushes"] += 1
        self.counts["bytes"] += sum(rows.nbytes for rows in parcel.push.rows.values())
        self.counts["push_s"] += time.monotonic() - parcel.sent_at
        self.counts["transitions"] += parcel.push.transitions
        for task in reply.room:
            self.full[task].add(parcel.shard)
        self.turn = (parcel.shard + 1) % len(self.shards)

    def _refused(self, parcel: Parcel, wait_s: float) -> None:
        """Queue a refused push for another shard: at once, or after a wait when all shards have refused."""
        self.counts["refusals"] += 1
        self.pending.appendleft((parcel.push, parcel.is_rest))
        self.turn = (parcel.shard + 1) % len(self.shards)
        self.refused.append(wait_s)
        if len(self.refused) >= len(self.shards) - len(self.stuck):
            self.retry_at = time.monotonic() + min(self.refused)
            self.refused = []

    def _split(self, parcel: Parcel, room: dict[int, int]) -> None:
        """Send the same shard the part that its budgets have room for, and queue the rest for other shards."""
        fits, rest = {}, {}
        for task, rows in parcel.push.rows.items():
            head, tail = split(rows, room[task]) if task in room else (rows, None)
            if head is not None:
                fits[task] = head
            if tail is not None:
                rest[task] = tail
            if room.get(task) == 0:
                self.full[task].add(parcel.shard)
        returns = parcel.push[1:]  # of one part alone: moments must count once
        if rest:
            self.pending.appendleft((Push(rest, *(({}, {}) if fits else returns)), True))
        if fits:
            if self.flying is None:
                self._fly(Push(fits, *returns), True, parcel.shard)
            else:
                self.pending.appendleft((Push(fits, *returns), True))
        else:
            self.turn = (parcel.shard + 1) % len(self.shards)

    def stats(self) -> WriterStats:
        return WriterStats(**self.counts)

    def state(self) -> dict[str, Any]:
        """Return the state for a lock-step checkpoint. Raises RuntimeError if anything is in flight."""
        if self.busy or self.stuck:
            raise RuntimeError("a writer's state can be taken only when nothing is in flight")
        return {
            "turn": self.turn,
            "sequence": self.sequence,
            "full": {str(task): sorted(shards) for task, shards in self.full.items()},
            "counts": dict(self.counts),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.turn, self.sequence = state["turn"], state["sequence"]
        self.full |= {int(task): set(shards) for task, shards in state["full"].items()}
        self.counts = dict(state["counts"])
