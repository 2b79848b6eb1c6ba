"""Rows: the unit in which transitions are pushed, stored and kept in order.

A stream of experience s0 a0 r0 s1 a1 r1 ... is cut into segments. A segment of n transitions is n + 1 rows: row i holds
s_i, a_i, r_i and whether s_{i+1} is terminal, and the final row, marked `last`, holds only the observation that ends
the segment. The next observation of any row that is not last is therefore the observation of the row after it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
    """One or more whole segments of one task, one after another; the final row is always marked last."""

    observations: np.ndarray  # (n, observation) float32
    actions: np.ndarray  # (n, action) float32, zero in last rows
    rewards: np.ndarray  # (n,) float32, raw, zero in last rows
    terminals: np.ndarray  # (n,) bool: the next observation is terminal (no bootstrap)
    last: np.ndarray  # (n,) bool: the row only ends a segment

    @property
    def transitions(self) -> int:
        return len(self.last) - int(np.count_nonzero(self.last))

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self)


def split(rows: Rows, transitions: int) -> tuple[Rows, Rows | None]:
    """Cut rows after `transitions` transitions into two valid Rows; the second is None when nothing is left."""
    if transitions >= rows.transitions:
        return rows, None
    cut = int(np.searchsorted(np.cumsum(~rows.last), transitions + 1))  # the first row that no longer fits
    rest = Rows(*(array[cut:] for array in rows))
    if cut == 0 or rows.last[cut - 1]:
        return Rows(*(array[:cut] for array in rows)), rest
    head = Rows(*(array[: cut + 1].copy() for array in rows))  # the cut row's observation ends the first part
    head.last[-1], head.terminals[-1], head.rewards[-1], head.actions[-1] = True, False, 0.0, 0.0
    return head, rest


class Push(NamedTuple):
    """What an actor sends at once: rows by task index, and the return extremes of episodes that ended meanwhile.

    The extremes travel with the data, so whoever samples a transition also knows the scale of its finished episode.
    """

    rows: dict[int, Rows]
    return_extremes: dict[int, tuple[float, float]]  # task index -> (least, greatest) discounted return

    @property
    def transitions(self) -> int:
        return sum(rows.transitions for rows in self.rows.values())


class Batches(NamedTuple):
    """Several batches of B transitions, padded to the widest task; rows of a batch are grouped by task."""

    observations: np.ndarray  # (batches, B, observation) float32
    actions: np.ndarray  # (batches, B, action) float32
    rewards: np.ndarray  # (batches, B) float32, raw
    masks: np.ndarray  # (batches, B) float32: 0 where the next observation is terminal
    next_observations: np.ndarray  # (batches, B, observation) float32
    task_ids: np.ndarray  # (batches, B) int64
    return_minimum: np.ndarray  # (tasks,) float32, +inf before a task's first finished episode
    return_maximum: np.ndarray  # (tasks,) float32, -inf likewise

    @property
    def num_batches(self) -> int:
        return len(self.rewards)
