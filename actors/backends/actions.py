"""Turns a policy's actions in [-1, 1] into the actions of a task.

docs/benchmarks.md states the rule for users. In a dimension with two bounds, [-1, 1] is spread evenly between them,
whatever their size. A dimension with one bound reaches 2 from it. A dimension without bounds is [-1, 1] itself. The
values of whole numbers share [-1, 1] in equal parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

ONE_SIDED_REACH = 2  # the length of [-1, 1]
MUJOCO_UNLIMITED = 1e10  # mjMAXVAL: dm_control and envpool give it as the bound of a control without limit
MOST_SAID = 4  # dimensions of a box whose ends are listed one by one
BELOW_2_64 = np.nextafter(2.0**64, 0.0)

Taken = Callable[[np.ndarray], np.ndarray]  # from (..., action) float32 to an environment's actions


class ActionScaler:
    """Maps [-1, 1] onto a box of actions. Results have the box's dtype and are never outside the box.

    Args:
        low, high: (action,) bounds, of the box's dtype. A missing bound is infinite, or not `bounded`.
        bounded: two arrays (action,) bool: whether there is a lower bound, and an upper bound. Whole numbers need them,
            as they have no infinity.

    Raises ValueError for bounds that are NaN or in the wrong order.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, bounded: tuple[np.ndarray, np.ndarray] | None = None) -> None:
        if low.dtype != high.dtype or low.shape != high.shape or low.ndim != 1:
            raise ValueError(f"bounds {low.dtype} {low.shape} and {high.dtype} {high.shape} are not those of one box")
        if not np.all(low <= high):  # NaN is not in order either
            raise ValueError(f"the bounds {low} and {high} are not in order")
        self.low, self.high, self.dtype = low, high, low.dtype
        self.bounded = (np.isfinite(low), np.isfinite(high)) if bounded is None else bounded
        self.whole = low.dtype.kind in "iub"
        greatest = np.iinfo(low.dtype).max if low.dtype.kind in "iu" else None
        sides = zip(low.tolist(), high.tolist(), self.bounded[0], self.bounded[1], strict=True)
        ends = [reached(*side, greatest) for side in sides]
        # Python's numbers, because float64 does not hold every integer of 64 bits.
        self.reach: tuple[list[Any], list[Any]] = ([least for least, _ in ends], [most for _, most in ends])
        self.identity = not self.whole and all(end == (-1, 1) for end in ends)
        if self.whole:
            self.first = np.array([least % (1 << 64) for least, _ in ends], np.uint64)
            self.last = np.array([most - least for least, most in ends], np.uint64)
            self.values = np.array([float(most - least + 1) for least, most in ends])
        else:
            self.least, self.most = (np.array(end, np.float64) for end in self.reach)
            self.centre, self.half = self.most / 2 + self.least / 2, self.most / 2 - self.least / 2

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """Return (..., action) in the box's dtype for float32 in [-1, 1]. It may be the same array if nothing changes.

        The computation is in float64. The ends of [-1, 1] map exactly to the ends of the reached range.
        """
        if self.identity:
            return actions.astype(self.dtype, copy=False)
        wide = actions.astype(np.float64)
        if self.whole:
            return self._counted(wide)
        scaled = np.where(wide >= 1.0, self.most, np.where(wide <= -1.0, self.least, self.centre + self.half * wide))
        found: np.ndarray = np.clip(scaled.astype(self.dtype), self.low, self.high)
        return found

    def _counted(self, wide: np.ndarray) -> np.ndarray:
        """Return the whole number whose part of [-1, 1] an action is in. Sums wrap at 2^64, as in two's complement."""
        part = np.clip(np.floor((wide + 1.0) / 2.0 * self.values), 0.0, BELOW_2_64).astype(np.uint64)
        part = np.where(wide >= 1.0, self.last, np.minimum(part, self.last))
        return (self.first + part).astype(self.dtype)


def reached(low: Any, high: Any, is_low: bool, is_high: bool, greatest: int | None) -> tuple[Any, Any]:
    """Return the range that [-1, 1] reaches in a dimension, with the bounds that it has. `greatest` is the largest
    integer of the dtype, None for floats."""
    if is_low and is_high:
        return int(low) if isinstance(low, bool) else low, int(high) if isinstance(high, bool) else high
    if is_low:
        most = low + ONE_SIDED_REACH
        return low, most if greatest is None else min(most, greatest)
    if is_high:
        least = high - ONE_SIDED_REACH
        return least if greatest is None else max(least, -greatest - 1), high
    return -1, 1


def mujoco_scaler(low: np.ndarray, high: np.ndarray) -> ActionScaler:
    """Make the scaler of MuJoCo's controls (action,). Some of them may have no limit."""
    return ActionScaler(
        np.where(low <= -MUJOCO_UNLIMITED, -np.inf, low).astype(low.dtype),
        np.where(high >= MUJOCO_UNLIMITED, np.inf, high).astype(high.dtype),
    )


def box_scaler(space: Any) -> ActionScaler:
    """Make the scaler of gymnasium's Box, with its actions flattened."""
    return ActionScaler(
        space.low.ravel(), space.high.ravel(), (space.bounded_below.ravel(), space.bounded_above.ravel())
    )


def bounds(space: Any) -> str:
    """Describe the actions of gymnasium's Box or Discrete in words. Spaces with the same words take equal actions."""
    if not hasattr(space, "low"):
        return f"whole numbers from {space.start} to {space.start + space.n - 1}"
    scaler = box_scaler(space)
    least, most = scaler.reach
    said = [str(ends[0]) if len(set(ends)) == 1 else str(ends) for ends in scaler.reach]
    if max(map(len, (set(least), set(most)))) > 1 and len(least) > MOST_SAID:
        digest = hashlib.sha256(repr(scaler.reach).encode()).hexdigest()[:12]
        said = [f"{min(least)}", f"{max(most)} (together {digest})"]
    return f"{scaler.dtype} from {' to '.join(said)}"


def indices(actions: np.ndarray) -> np.ndarray:
    """Turn discrete actions (..., 1) into (...) int32, as environments take them."""
    return actions[..., 0].astype(np.int32)
