"""Losses that are infinite or no number: how they are told, and what helps."""

from __future__ import annotations

import numpy as np

from replay.store.rows import Batches


class NonFinite(FloatingPointError):
    """A loss became infinite or no number."""


def way_out(batches: Batches) -> str:
    """What helps after a loss that these have made infinite or no number."""
    arrays = batches._asdict()
    bad = [name for name in ("observations", "actions", "rewards", "next_observations") if not all_finite(arrays[name])]
    if bad:
        return f"their {' and '.join(bad)} hold such numbers, which replay drops when the run is resumed"
    return "all in them is finite, so learning has diverged: resume with a lower --learner.learning-rate"


def all_finite(values: np.ndarray) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())
