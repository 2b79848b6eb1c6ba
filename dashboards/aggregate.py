"""Many scores as one: the interquartile mean and its bootstrap interval (Agarwal et al. 2021, arXiv 2108.13264)."""

from __future__ import annotations

from typing import Any

import numpy as np

CHUNK = 256  # resamples at a time, which bounds memory


def iqm(scores: np.ndarray) -> float:
    """Mean of the middle half of all scores, (runs, tasks) or of any other shape."""
    return float(middle_half(np.asarray(scores, np.float64), None))


def middle_half(scores: np.ndarray, axis: int | None) -> Any:
    """Its mean, along an axis or of everything."""
    from scipy.stats import trim_mean  # a second to load, which no refusal of a setting should wait for

    return trim_mean(scores, proportiontocut=0.25, axis=axis)


def iqm_interval(
    scores: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Bounds of the IQM by the percentile bootstrap: runs (rows) are drawn anew, for each task (column) by itself.

    With a single run there is nothing to draw from, and both bounds are its IQM.
    """
    scores = np.asarray(scores, np.float64)
    runs, tasks = scores.shape
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    for begun in range(0, resamples, CHUNK):
        drawn = rng.integers(runs, size=(min(CHUNK, resamples - begun), runs, tasks))
        sample = np.take_along_axis(scores[None], drawn, axis=1).reshape(len(drawn), -1)
        found.append(middle_half(sample, 1))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(found), [tail, 100 - tail])
    return float(low), float(high)
