"""Rows: the unit in which transitions are pushed, stored and kept in order.

A stream of experience s0 a0 r0 s1 a1 r1 ... is cut into segments. A segment of n transitions is n + 1 rows. Row i holds
s_i, a_i, r_i and whether s_{i+1} is terminal. The final row, flagged LAST, holds only the observation that ends the
segment. So the next observation of any row that is not last is the observation of the following row.

If observations are stacks of frames, a row holds only the newest frame. A segment that begins within an episode then
starts with the earlier frames, in rows flagged CONTEXT, which are never drawn. A segment that begins an episode has no
such rows; its first frame is repeated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replay.store import moments

TERMINAL = 1  # the next observation is terminal: no bootstrap
LAST = 2  # the row only ends a segment
CONTEXT = 4  # the row only holds a frame for the stacks of later rows
NOT_DRAWN = LAST | CONTEXT


class Rows(NamedTuple):
    """One or more whole segments of one task, one after another; the final row is always LAST."""

    observations: np.ndarray  # (n, *observation) of the storage's dtype, or a dtype that is cast to it
    actions: np.ndarray  # (n, action) float32, zero in rows that are not drawn
    rewards: np.ndarray  # (n,) float32, raw, zero in rows that are not drawn
    flags: np.ndarray  # (n,) uint8

    @property
    def last(self) -> np.ndarray:
        """Mask of rows that only end a segment, (n,) bool."""
        found: np.ndarray = (self.flags & LAST) != 0
        return found

    @property
    def terminals(self) -> np.ndarray:
        """Mask of rows whose next observation is terminal, (n,) bool."""
        found: np.ndarray = (self.flags & TERMINAL) != 0
        return found

    @property
    def transitions(self) -> int:
        return int(np.count_nonzero((self.flags & NOT_DRAWN) == 0))

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self)


def split(rows: Rows, transitions: int) -> tuple[Rows | None, Rows | None]:
    """Cut rows after `transitions` transitions into two valid Rows. A part without transitions is None.

    A cut within a segment repeats one observation, which ends the first part and begins the second. Stacks of frames in
    the second part then begin there too. Such cuts are rare: they are made only where a budget ends.
    """
    if transitions >= rows.transitions:
        return rows, None
    if transitions <= 0:
        return None, rows
    drawn = (rows.flags & NOT_DRAWN) == 0
    cut = int(np.searchsorted(np.cumsum(drawn), transitions + 1))  # the first row that no longer fits
    while rows.flags[cut - 1] & CONTEXT:
        cut -= 1
    rest = Rows(*(array[cut:] for array in rows))
    if rows.flags[cut - 1] & LAST:
        return Rows(*(array[:cut] for array in rows)), rest
    head = Rows(*(array[: cut + 1].copy() for array in rows))  # the cut row's observation ends the first part
    head.flags[-1], head.rewards[-1], head.actions[-1] = LAST, 0.0, 0.0
    return head, rest


class Push(NamedTuple):
    """The data that an actor sends in one call: rows by task index, and the return extremes of episodes that ended.

    The extremes are sent with the rows, so a sampler of a transition also gets the scale of its finished episode. With
    a scale by the deviation of returns, the moments of running returns are sent too.
    """

    rows: dict[int, Rows]
    return_extremes: dict[int, tuple[float, float]]  # task index -> (least, greatest) discounted return
    # Task index -> moments (4,) of the running returns of these steps; nobody changes it.
    return_moments: dict[int, np.ndarray] = {}  # noqa: RUF012

    @property
    def transitions(self) -> int:
        return sum(rows.transitions for rows in self.rows.values())


class Batches(NamedTuple):
    """Several batches of B transitions. The rows of a batch are grouped by task.

    Flat observations are padded with zeros to the sizes of the widest task, privileged numbers apart (StorageSpec);
    others have the same shape in all tasks.
    """

    observations: np.ndarray  # (batches, B, *observation) of the storage's dtype
    actions: np.ndarray  # (batches, B, action) float32
    rewards: np.ndarray  # (batches, B) float32, raw; for n-step transitions their discounted sum
    masks: np.ndarray  # (batches, B) float32: 0 where the next observation is terminal, else discount^(steps - 1)
    next_observations: np.ndarray  # (batches, B, *observation), `steps` steps later
    task_ids: np.ndarray  # (batches, B) int64
    return_minimum: np.ndarray  # (tasks,) float32, +inf before a task's first finished episode
    return_maximum: np.ndarray  # (tasks,) float32, -inf before a task's first finished episode
    return_moments: np.ndarray = moments.NONE  # (tasks, 4) float64, of all running returns that the shard was sent

    @property
    def num_batches(self) -> int:
        return len(self.rewards)

    def first(self, count: int) -> Batches:
        """Return the first `count` batches, as views."""
        return self._some(slice(count))

    def rest(self, count: int) -> Batches:
        """Return all but the first `count` batches, as views."""
        return self._some(slice(count, None))

    def _some(self, which: slice) -> Batches:
        return self._replace(**{name: getattr(self, name)[which] for name in Batches._fields[:6]})
