"""A ring of the rows of one task, in memory that the caller provides."""

from __future__ import annotations

import math

import numpy as np

from replay.store.rows import LAST, NOT_DRAWN, TERMINAL, Rows

LARGEST_FLOAT16 = float(np.finfo(np.float16).max)
SCAN_ROWS = 1024  # rows that are scanned at once for the end of a segment


class TaskRing:
    """A ring of whole segments. Rows are numbered from the first row that was ever stored; it holds rows [tail, head).

    A row is packed as reward, action, observation, so that sampling a row reads one place in memory. Flags are in a
    separate array, small enough to stay in the cache while draws are checked against it.

    To store rows, call `evict`, `write` and `advance`. Rows [tail, head) are whole after each of these steps, so a
    process may be killed at any instruction. Readers may copy rows without a lock if they check afterwards that `tail`
    has not passed these rows.

    Args:
        memory: (bytes,) uint8, zero or as a ring of the same shape left it.
        bounds: (3,) int64, owned by the caller: head, tail, and the number of transitions between them.
    """

    def __init__(
        self, memory: np.ndarray, bounds: np.ndarray, rows: int, shape: tuple[int, ...], dtype: str, action_size: int
    ) -> None:
        self.rows = rows
        self.bounds = bounds
        self.clipped = 0  # how many numbers of observations this process has clipped to float16's range
        self.stride = row_stride(shape, dtype, action_size)
        self.packed = memory[: rows * self.stride].reshape(rows, self.stride)
        self.flags = memory[rows * self.stride : rows * (self.stride + 1)]
        item = np.dtype(dtype)
        strides = np.zeros(shape, item).strides
        self.rewards = np.ndarray((rows,), np.float32, memory, 0, (self.stride,))
        self.actions = np.ndarray((rows, action_size), np.float32, memory, 4, (self.stride, 4))
        start = 4 + 4 * action_size
        self.observations = np.ndarray((rows, *shape), item, memory, start, (self.stride, *strides))

    @property
    def head(self) -> int:
        return int(self.bounds[0])

    @property
    def tail(self) -> int:
        return int(self.bounds[1])

    @property
    def transitions(self) -> int:
        return int(self.bounds[2])

    def evict(self, count: int) -> bool:
        """Make room for `count` rows by removing the oldest segments. Return whether any were removed."""
        least = self.head + count - self.rows
        if least <= self.tail:
            return False
        tail = self.segment_start(least)
        dropped = self.flags[self.places(self.tail, tail)]
        self.bounds[2] -= np.count_nonzero((dropped & NOT_DRAWN) == 0)
        self.bounds[1] = tail
        return True

    def write(self, rows: Rows) -> None:
        """Write rows after the head. The ring does not hold them until `advance`."""
        start, observations = 0, self._fitting(rows.observations)
        while start < len(rows.flags):
            place = (self.head + start) % self.rows
            stop = min(len(rows.flags), start + self.rows - place)
            to = slice(place, place + stop - start)
            self.rewards[to] = rows.rewards[start:stop]
            self.actions[to] = rows.actions[start:stop]
            self.observations[to] = observations[start:stop]
            self.flags[to] = rows.flags[start:stop]
            start = stop

    def _fitting(self, observations: np.ndarray) -> np.ndarray:
        """Return observations, clipped if stored as float16: finite numbers beyond its range would become infinite."""
        if self.observations.dtype != np.float16 or observations.dtype == np.float16:
            return observations
        beyond = (np.abs(observations) > LARGEST_FLOAT16) & np.isfinite(observations)
        if not beyond.any():
            return observations
        self.clipped += int(np.count_nonzero(beyond))
        return np.where(beyond, np.copysign(LARGEST_FLOAT16, observations), observations)

    def advance(self, count: int, transitions: int) -> None:
        """Move the head past `count` written rows, which hold `transitions` transitions."""
        self.bounds[2] += transitions
        self.bounds[0] += count

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return the numbers of `count` rows, drawn uniformly over transitions, with replacement. The ring must hold a
        transition."""
        head, tail = self.head, self.tail
        drawn: list[np.ndarray] = []
        missing = count
        while missing or not drawn:  # some extra rows are drawn, since the last row of a segment is rejected
            number = rng.integers(tail, head, size=missing + missing // 8 + 8 * (missing > 0))
            number = number[(self.flags[number % self.rows] & NOT_DRAWN) == 0][:missing]
            drawn.append(number)
            missing -= len(number)
        return drawn[0] if len(drawn) == 1 else np.concatenate(drawn)

    def look_ahead(self, number: np.ndarray, steps: int, discount: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (rewards, masks, following) of transitions of `steps` steps, fewer where the episode or segment ends.

        rewards: sum of discount^k r_k in float32. masks: 0 if terminal, else discount^(steps taken - 1), so that a
        target is reward + discount * mask * value(following). following: number of the row of the next observation.
        """
        place = number % self.rows
        rewards = self.rewards[place].copy()
        masks = np.ones(len(number), np.float32)
        following = number + 1
        terminal = (self.flags[place] & TERMINAL) != 0
        factor = 1.0
        for _ in range(steps - 1):
            factor *= discount
            place = following % self.rows
            goes_on = ~terminal & ((self.flags[place] & LAST) == 0)
            rewards[goes_on] += np.float32(factor) * self.rewards[place[goes_on]]
            masks[goes_on] = factor
            terminal |= goes_on & ((self.flags[place] & TERMINAL) != 0)
            following += goes_on
        masks[terminal] = 0.0
        return rewards, masks, following

    def look_back(self, number: np.ndarray, tail: int, frames: int) -> list[np.ndarray]:
        """Return the numbers of the `frames` rows in each row's stack, oldest first. A segment's first row is repeated.

        `tail` is the tail at the time of the draw. It may have moved since; the segments have not.
        """
        stack = [number]
        for _ in range(frames - 1):
            before = stack[-1] - 1
            inside = (before >= tail) & ((self.flags[before % self.rows] & LAST) == 0)
            stack.append(np.where(inside, before, stack[-1]))
        return stack[::-1]

    def copy(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of (packed rows, flags) of rows [first, stop)."""
        places = self.places(first, stop)
        return self.packed[places].copy(), self.flags[places].copy()

    def fill(self, first: int, packed: np.ndarray, flags: np.ndarray) -> None:
        """Write rows that `copy` returned, from number `first` on. The caller sets the bounds."""
        places = self.places(first, first + len(flags))
        self.packed[places], self.flags[places] = packed, flags

    def places(self, first: int, stop: int) -> slice | np.ndarray:
        """Return the places of rows [first, stop) in memory: a slice, or indices if the rows wrap around."""
        place = first % self.rows
        if place + stop - first <= self.rows:
            return slice(place, place + stop - first)
        return np.arange(first, stop) % self.rows

    def segment_start(self, number: int) -> int:
        """Return the first row from `number` on that begins a segment; the head if there is none."""
        at = max(number - 1, self.tail)
        if number <= self.tail:
            return self.tail
        while at < self.head:
            stop = min(at + SCAN_ROWS, self.head)
            ends = np.flatnonzero(self.flags[self.places(at, stop)] & LAST)
            if len(ends):
                return at + int(ends[0]) + 1
            at = stop
        return self.head


def unpack(packed: np.ndarray, flags: np.ndarray, shape: tuple[int, ...], dtype: str, action_size: int) -> Rows:
    """Return Rows from the result of `TaskRing.copy`."""
    memory = np.concatenate([packed.reshape(-1), flags])
    ring = TaskRing(memory, np.zeros(3, np.int64), len(flags), shape, dtype, action_size)
    return Rows(ring.observations, ring.actions, ring.rewards, ring.flags)


def row_stride(shape: tuple[int, ...], dtype: str, action_size: int) -> int:
    """Return the bytes of a packed row without its flag, a multiple of 4."""
    size = 4 + 4 * action_size + math.prod(shape) * np.dtype(dtype).itemsize
    return size + -size % 4
