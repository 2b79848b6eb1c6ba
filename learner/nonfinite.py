"""The error for losses that are infinite or NaN, and the advice in its message."""

from __future__ import annotations

import numpy as np

from replay.store.rows import Batches


class NonFinite(FloatingPointError):
    """A loss became infinite or NaN."""


def way_out(batches: Batches) -> str:
    """Return advice, in words, for after these batches made a loss infinite or NaN."""
    arrays = batches._asdict()
    bad = [name for name in ("observations", "actions", "rewards", "next_observations") if not all_finite(arrays[name])]
    if bad:
        return f"their {' and '.join(bad)} hold such numbers, which replay drops when the run is resumed"
    return "all in them is finite, so learning has diverged: resume with a lower --learner.learning-rate"


def all_finite(values: np.ndarray) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())
