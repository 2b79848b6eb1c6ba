"""What is a number to learn from; finds segments that hold others in what a shard takes over, and has them never drawn.

NaN and the infinite ones are none, and neither is what is so large that its square, or a sum of some, is infinite in
float32: one of these makes a loss NaN as well. Actors let no such number through, but files and snapshots may be of a
time when they did, and one row that is drawn reaches every parameter of the learner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from replay.store.ring import TaskRing
from replay.store.rows import CONTEXT, LAST, NOT_DRAWN

LARGEST_NUMBER = 1e15  # in magnitude, of rewards and observations
BYTES_AT_ONCE = 1 << 20
EXPONENT = 0x7C00  # bits of a float16 that are all set in what is not finite


def are_numbers(values: np.ndarray) -> np.ndarray:
    """Bool of the same shape: which can be learned from."""
    if values.dtype.kind != "f":
        return np.ones(values.shape, bool)
    return np.asarray(np.abs(values) <= LARGEST_NUMBER)  # not so of NaN


def all_numbers(*arrays: np.ndarray) -> bool:
    """Whether all in them can be learned from. A sum of squares tells in one pass, mostly; where it is large, each
    number is looked at."""
    total = 0.0
    for array in arrays:
        if array.dtype.kind == "f":
            total += float(np.vdot(array, array))
    return total < LARGEST_NUMBER**2 / 2 or all(bool(are_numbers(array).all()) for array in arrays)


class Dropped(NamedTuple):
    """What is not drawn any more."""

    segments: int
    transitions: int


def drop_bad_segments(ring: TaskRing) -> Dropped:
    """Have no segment drawn that holds a bad number: its rows only keep their place until they are overwritten.

    The caller makes the ring's bounds last. If the process is killed meanwhile, the next one does it again and finds
    the same rows.
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
    """Numbers of held rows with a reward, an action or an observation that is no number to learn from."""
    step = max(1, BYTES_AT_ONCE // ring.stride)
    start = ring.tail
    while start < ring.head:
        place = start % ring.rows
        count = min(step, ring.head - start, ring.rows - place)
        yield from (start + np.flatnonzero(_bad(ring, slice(place, place + count)))).tolist()
        start += count


def _bad(ring: TaskRing, place: slice) -> np.ndarray:
    """(rows,) bool."""
    kind = ring.observations.dtype
    if kind == np.float32:  # a packed row is nothing else
        rows = ring.packed[place].view(np.float32)
        if all_numbers(rows):
            return np.zeros(len(rows), bool)
        return np.asarray(~are_numbers(rows).all(axis=1))
    bad = ~(are_numbers(ring.rewards[place]) & are_numbers(ring.actions[place]).all(axis=1))
    if kind == np.float16:  # numpy's own look at these is many times slower
        exponents = ring.observations[place].view(np.uint16) & EXPONENT
        if exponents.max() == EXPONENT:
            bad |= (exponents == EXPONENT).reshape(len(bad), -1).any(axis=1)
    return bad
