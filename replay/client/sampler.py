"""The learner's client of replay: requests batches ahead, from shards in turn, with all transitions equally likely."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from replay.client.handle import Future, ShardHandle, ShardUnavailable
from replay.shard import SampleReply
from replay.stats import SamplerStats
from replay.store.rows import Batches

RETRY_S = 0.2  # seconds between tries of a shard that is unreachable
ARRIVAL_S = 60.0  # seconds allowed for fetching an answer that is ready
POLL_S = 0.05  # longest wait for an answer, in seconds, before another shard may be asked
OVERDUE_S = 2.0  # age at which a request no longer counts as in flight; its shard gets no more until it answers


@dataclass
class Request:
    """A request to a shard: to grant batches, to serve them or, usually, both."""

    shard: int
    future: Future
    sent_at: float
    granter: int = -1  # the shard whose grant is to be served; -1 if this request is for a grant
    granted: int = 0
    reckoned: int = 0  # batches that the shard is expected to serve


class Sampler:
    """Samples batches, with `depth` requests in flight, also while the caller computes. Not thread-safe.

    The limiter of each shard grants batches for its inserts. Usually the same shard serves these batches. When shards
    hold unequal amounts, for example after a shard has lost its content, other shards serve some of its batches, so
    that every transition of a task is equally likely, whichever shard holds it.

    A shard that was unreachable is first told how many of its granted batches have arrived (`settle`). It then grants
    again the batches whose answers were lost.

    Args:
        most: largest number of batches of one request.
        depth: number of requests in flight.
        life: number of earlier samplers in the run; shards refuse requests of an earlier sampler.
        received: batches granted by each shard that the learner has used already.
        probabilities: probability of drawing each task; () if equal.
    """

    def __init__(
        self,
        shards: Sequence[ShardHandle],
        most: int,
        depth: int,
        life: int = 0,
        received: Sequence[int] = (),
        probabilities: Sequence[float] = (),
    ) -> None:
        self.shards = shards
        self.most = most
        self.depth = depth
        self.life = life
        self.received = list(received) or [0] * len(shards)
        self.probabilities = np.array(probabilities)
        self.turn = 0
        self.in_flight: list[Request] = []
        self.vouchers: list[tuple[int, int]] = []  # (shard, batches): granted by it, for any shard to serve
        self.settled = [False] * len(shards)
        self.settling: dict[int, Future] = {}
        self.settlements = [0] * len(shards)
        self.content: list[Sequence[int]] = [()] * len(shards)  # transitions of each task, of settled shards
        self.owed = np.zeros(len(shards))  # how many batches each shard has served less than its part of the content
        self.not_before = [0.0] * len(shards)
        self.counts: dict[str, Any] = asdict(SamplerStats())

    def take_due(self) -> SampleReply | None:
        """Return batches of the first shard, in turn, that has any due now; None if none has. For lock-step execution.

        The waits that shards ask for are ignored, so that the result does not depend on time.
        """
        for shard in range(len(self.shards)):
            if not self.settled[shard]:
                self._settle(shard)
                self._hear_settlement(shard)
        for _ in self.shards:
            self._ask(self.turn)
            self.turn = (self.turn + 1) % len(self.shards)
            while self.in_flight:
                reply = self._answer(self.in_flight[0])
                while self.vouchers:
                    self._serve()
                if reply is not None:
                    return reply
        return None

    def next(self, timeout: float, into: Batches | None = None) -> SampleReply | None:
        """Return the next reply that has batches, or None if none arrives within `timeout` seconds.

        `into` is space for at least `most` batches. If it is given, the batches are copied there and the reply holds
        views of it, so that no memory of the object store stays in use.
        """
        started = time.monotonic()
        while True:
            self._request()
            reply = self._take(max(0.0, started + timeout - time.monotonic()))
            now = time.monotonic()
            if reply is not None or now - started >= timeout:
                self.counts["wait_s"] += now - started
                self._request()  # before the caller copies and computes
                return reply if reply is None or into is None else reply._replace(batches=copied(reply.batches, into))

    def _request(self) -> None:
        now = time.monotonic()
        fresh = sum(not self._is_overdue(request.shard) for request in self.in_flight)
        while fresh < self.depth and self.vouchers and self._serve():
            fresh += 1
        fresh += len(self.vouchers)  # granted already, but no shard can serve them now
        idle = 0
        while fresh < self.depth and idle < len(self.shards):
            shard, self.turn = self.turn, (self.turn + 1) % len(self.shards)
            idle += 1
            if self.not_before[shard] > now or self._is_overdue(shard):
                continue
            if self.settled[shard]:
                self._ask(shard)
                fresh, idle = fresh + 1, 0
            elif shard not in self.settling and all(request.shard != shard for request in self.in_flight):
                self._settle(shard)

    def _take(self, timeout: float) -> SampleReply | None:
        """Wait up to `timeout` seconds for one answer. Return its batches, if it has any."""
        settling = list(self.settling.items())
        futures = [request.future for request in self.in_flight] + [future for _, future in settling]
        if not futures:
            time.sleep(max(0.0, min(timeout, min(self.not_before) - time.monotonic())))
            return None
        index = self.shards[0].wait(futures, min(timeout, POLL_S))
        if index is None:
            return None
        if index >= len(self.in_flight):
            self._hear_settlement(settling[index - len(self.in_flight)][0])
            return None
        return self._answer(self.in_flight[index])

    def _is_overdue(self, shard: int) -> bool:
        """Whether a shard has not answered a request for OVERDUE_S: it may be gone before Ray knows it. An answer that
        has arrived but has not been taken does not count: the caller was computing."""
        since = time.monotonic() - OVERDUE_S
        old = [r for r in self.in_flight if r.shard == shard and r.sent_at < since]
        return len(self.shards) > 1 and any(not request.future.done() for request in old)

    def _settle(self, shard: int) -> None:
        self.settlements[shard] += 1
        self.settling[shard] = self.shards[shard].call("settle", self.received[shard], self._life(shard))

    def _hear_settlement(self, shard: int) -> None:
        future = self.settling.pop(shard)
        try:
            self.content[shard] = future.result(ARRIVAL_S)
        except ShardUnavailable:
            self.not_before[shard] = time.monotonic() + RETRY_S
            return
        self.settled[shard] = True
        self.owed[:] = 0.0

    def _life(self, shard: int) -> tuple[int, int]:
        return self.life, self.settlements[shard]

    def _parts(self) -> tuple[np.ndarray, tuple[int, ...] | None]:
        """Return the fraction of all batches that each shard should serve, and the transitions of each task in all
        shards (None for a single shard, or if none is settled)."""
        if len(self.shards) == 1:
            return np.ones(1), None
        parts = np.zeros(len(self.shards))
        settled = [shard for shard, is_settled in enumerate(self.settled) if is_settled and not self._is_overdue(shard)]
        if not settled:
            return parts, None
        held = np.array([self.content[shard] for shard in settled])
        if (whole := held.all(axis=1)).any():
            held[~whole] = 0  # a shard that restarted empty serves when it holds every task
        totals = held.sum(axis=0)
        likely = self.probabilities if len(self.probabilities) else np.full(len(totals), 1.0 / len(totals))
        parts[settled] = (held / np.maximum(totals, 1)) @ likely
        return parts / max(parts.sum(), 1e-12), tuple(int(total) for total in totals)

    def _ask(self, shard: int) -> None:
        """Ask a shard for a grant, and also to serve it unless the shard has served more than its part."""
        parts, totals = self._parts()
        serves = len(self.shards) == 1 or (
            parts[shard] > 0 and self.owed[shard] > -self.most * parts[shard] * len(self.shards)
        )
        arguments = (self.most, self._life(shard), totals, 0, bool(serves))
        request = Request(shard, self.shards[shard].call("sample", *arguments), time.monotonic())
        if serves:
            request.reckoned = self.most
            self._reckon(shard, self.most, parts)
        self.in_flight.append(request)
        self.counts["requests"] += 1

    def _serve(self) -> bool:
        """Ask the shard that owes most to serve the oldest voucher. Return False if no shard can serve."""
        parts, totals = self._parts()
        able = np.flatnonzero(parts)
        if not len(able):
            return False
        granter, granted = self.vouchers.pop(0)
        shard = int(max(able, key=lambda s: self.owed[s]))
        arguments = (granted, self._life(shard), totals, granted)
        future = self.shards[shard].call("sample", *arguments)
        self.in_flight.append(Request(shard, future, time.monotonic(), granter, granted, granted))
        self._reckon(shard, granted, parts)
        self.counts["requests"] += 1
        self.counts["elsewhere"] += granted
        return True

    def _reckon(self, shard: int, batches: int, parts: np.ndarray) -> None:
        self.owed += parts * batches
        self.owed[shard] -= batches

    def _answer(self, request: Request) -> SampleReply | None:
        """Process the answer to a request, which has arrived. Return it if it has batches, else None."""
        self.in_flight.remove(request)
        try:
            reply: SampleReply = request.future.result(ARRIVAL_S)
        except ShardUnavailable:
            self._lost(request)
            return None
        shard = request.shard
        self.content[shard] = reply.content
        served = 0 if reply.batches is None else reply.batches.num_batches
        if request.reckoned != served:
            self._reckon(shard, served - request.reckoned, self._parts()[0])
        if request.granter < 0:
            self.received[shard] += reply.granted
        if reply.batches is not None:
            self.counts["batches"] += served
            self.counts["bytes"] += sum(array.nbytes for array in reply.batches)
            return reply if request.granter < 0 else reply._replace(shard=request.granter)
        if reply.is_stranger:
            self._lost(request)
        elif reply.granted or request.granted:
            self.vouchers.append((request.granter, request.granted) if request.granted else (shard, reply.granted))
        else:
            self.counts["refusals"] += 1
            self.not_before[shard] = time.monotonic() + reply.wait_s
        return None

    def _lost(self, request: Request) -> None:
        """Record that a request's shard was unreachable or restarted. Its content does not count until it settles."""
        self.counts["lost"] += 1
        self.settled[request.shard] = False
        self.not_before[request.shard] = time.monotonic() + RETRY_S
        if request.granted:
            self.vouchers.append((request.granter, request.granted))

    def stats(self) -> SamplerStats:
        return SamplerStats(**self.counts)

    def state(self) -> dict[str, Any]:
        """Return the state for a lock-step checkpoint."""
        return {"turn": self.turn, "owed": self.owed.tolist(), "counts": dict(self.counts)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Load the result of `state`. The shards are settled first, since settling sets `owed` to 0."""
        for shard in range(len(self.shards)):
            self._settle(shard)
            self._hear_settlement(shard)
        self.turn, self.counts = state["turn"], dict(state["counts"])
        self.owed[:] = state["owed"]


def copied(batches: Batches | None, into: Batches) -> Batches:
    """Copy batches to the beginning of `into` and return views of that."""
    assert batches is not None
    space = into.first(batches.num_batches)
    for place, array in zip(space, batches, strict=True):
        np.copyto(place, array)
    return space
