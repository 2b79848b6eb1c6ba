"""Finds segments with bad numbers in files and snapshots that a shard loads, and excludes them from sampling.

Bad numbers are NaN, infinite numbers, and numbers so large that their square, or a sum of squares, is infinite in
float32, which also makes a loss NaN. Actors reject bad numbers, but old files and snapshots may hold them. A single bad
row in a batch affects every parameter of the learner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from replay.store.ring import TaskRing
from replay.store.rows import CONTEXT, LAST, NOT_DRAWN

LARGEST_NUMBER = 1e15  # largest magnitude of a good number
BYTES_AT_ONCE = 1 << 20
EXPONENT = 0x7C00  # the exponent bits of a float16: all are set if it is not finite


def are_numbers(values: np.ndarray) -> np.ndarray:
    """Return a bool array of the same shape that marks good numbers."""
    if values.dtype.kind != "f":
        return np.ones(values.shape, bool)
    return np.asarray(np.abs(values) <= LARGEST_NUMBER)  # False for NaN


def all_numbers(*arrays: np.ndarray) -> bool:
    """Whether the arrays hold only good numbers. One pass for the sum of squares is usually enough; if the sum is
    large, each number is checked."""
    total = 0.0
    for array in arrays:
        if array.dtype.kind == "f":
            total += float(np.vdot(array, array))
    return total < LARGEST_NUMBER**2 / 2 or all(bool(are_numbers(array).all()) for array in arrays)


class Dropped(NamedTuple):
    """Counts of segments and transitions that are excluded from sampling."""

    segments: int
    transitions: int


def drop_bad_segments(ring: TaskRing) -> Dropped:
    """Exclude segments with a bad number from sampling. Their rows keep their places until they are overwritten.

    The caller makes the ring's bounds persistent. If the process is killed before, the next process repeats the search
    and finds the same rows.
    """
    bad = np.fromiter(bad_rows(ring), np.int64)
    if not len(bad):
        return Dropped(0, 0)
    number = np.arange(ring.tail, ring.head)
    places = number % ring.rows
    flags = ring.flags[places]
    ends = number[(flags & LAST) != 0]
    segment = np.searchsorted(ends, number)
    spoilt = np.isin(segment, np.searchsorted(ends, bad))
    drawn = (flags & NOT_DRAWN) == 0
    ring.flags[places[spoilt]] |= CONTEXT
    ring.bounds[2] = np.count_nonzero(drawn & ~spoilt)
    return Dropped(len(np.unique(segment[spoilt & drawn])), int(np.count_nonzero(spoilt & drawn)))


def bad_rows(ring: TaskRing) -> Iterator[int]:
    """Yield the row numbers of held rows that have a bad number in their reward, action or observation."""
    step = max(1, BYTES_AT_ONCE // ring.stride)
    start = ring.tail
    while start < ring.head:
        place = start % ring.rows
        count = min(step, ring.head - start, ring.rows - place)
        yield from (start + np.flatnonzero(_bad(ring, slice(place, place + count)))).tolist()
        start += count


def _bad(ring: TaskRing, place: slice) -> np.ndarray:
    """Return a mask (rows,) of rows with a bad number."""
    kind = ring.observations.dtype
    if kind == np.float32:  # then a packed row holds only float32 numbers
        rows = ring.packed[place].view(np.float32)
        if all_numbers(rows):
            return np.zeros(len(rows), bool)
        return np.asarray(~are_numbers(rows).all(axis=1))
    bad = ~(are_numbers(ring.rewards[place]) & are_numbers(ring.actions[place]).all(axis=1))
    if kind == np.float16:  # numpy's isfinite is many times slower for float16
        exponents = ring.observations[place].view(np.uint16) & EXPONENT
        if exponents.max() == EXPONENT:
            bad |= (exponents == EXPONENT).reshape(len(bad), -1).any(axis=1)
    return bad
