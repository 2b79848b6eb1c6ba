"""Segments in which every row has a different number, and the content of replay as plain lists."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from replay.rate_limiter import RateLimit
from replay.shard import Shard, ShardSpec
from replay.store.memory import PrivateMemory
from replay.store.ring import TaskRing, unpack
from replay.store.rows import CONTEXT, LAST, TERMINAL, Push, Rows
from replay.store.storage import Storage, StorageSpec


class Transition(NamedTuple):
    observation: float
    reward: float
    terminal: bool
    following: float


def segments(start: int, lengths: list[int], size: int = 2, terminal: bool = False, actions: int = 1) -> Rows:
    """Return segments of the given numbers of transitions. The numbers in the rows count up from `start`."""
    total = sum(length + 1 for length in lengths)
    number = np.arange(start, start + total, dtype=np.float32)
    flags = np.zeros(total, np.uint8)
    flags[np.cumsum(np.array(lengths, int) + 1) - 1] = LAST
    if terminal:
        flags[np.flatnonzero(flags == LAST) - 1] = TERMINAL
    plain = np.where(flags == LAST, 0, number).astype(np.float32)
    return Rows(np.repeat(number[:, None], size, axis=1), np.repeat(plain[:, None], actions, axis=1), plain, flags)


def transitions(rows: Rows) -> list[Transition]:
    """Return the transitions in order, each with the first number of its observations."""
    first = rows.observations.reshape(len(rows.flags), math.prod(rows.observations.shape[1:]))[:, 0].astype(float)
    return [
        Transition(first[i], float(rows.rewards[i]), bool(rows.terminals[i]), first[i + 1])
        for i in range(len(rows.flags))
        if not rows.flags[i] & (LAST | CONTEXT)
    ]


def held(ring: TaskRing) -> Rows:
    """Return all rows of a ring, oldest first."""
    if ring.head == ring.tail:
        return segments(0, [])
    packed, flags = ring.copy(ring.tail, ring.head)
    return unpack(packed, flags, ring.observations.shape[1:], ring.observations.dtype.str, ring.actions.shape[1])


def spec(tasks: int = 2, capacity: int = 200, **changes: object) -> StorageSpec:
    """Return the spec of tasks a, b, ... with observations of two numbers by default."""
    names = tuple("abcdefgh"[:tasks])
    shapes = changes.pop("observation_shapes", ((2,),) * tasks)
    base: dict[str, object] = {"action_size": 1, "segment_length": 5, "push_rows": 60}
    return StorageSpec(tasks=names, observation_shapes=shapes, capacity=(capacity,) * tasks, **(base | changes))  # type: ignore[arg-type]


def storage(of: StorageSpec, seed: int = 0) -> Storage:
    memory = PrivateMemory(of.nbytes, of.state_dtype())
    return Storage(of, memory.rows, memory.state, seed)


def push(start: int, *lengths: int, tasks: tuple[int, ...] = (0, 1)) -> Push:
    """Return a push of the same segments for several tasks, with the range of returns of the first."""
    return Push({task: segments(start, list(lengths)) for task in tasks}, {tasks[0]: (-1.0, float(start))})


def shard(url: str, index: int = 0, shards: int = 1, snapshot: str = "", **changes: Any) -> Shard:
    """Return a shard with snapshots at the URL: of two small tasks, unless `changes` of its storage differ."""
    storage = spec(changes.pop("tasks", 2), changes.pop("capacity", 200), **changes)
    limit = RateLimit(samples_per_step=4, batch_size=4, warmup=5, max_ahead=1000)
    return Shard(
        ShardSpec(
            index=index,
            storage=storage,
            limit=limit,
            seed=index,
            shards=shards,
            run="r",
            folder="",
            snapshots=url,
            snapshot=snapshot,
        )
    )


def numbers(one: Shard, task: int = 0) -> list[float]:
    """Return the numbers of the transitions of a task in a shard, oldest first."""
    return [transition.reward for transition in transitions(held(one.storage.rings[task]))]
