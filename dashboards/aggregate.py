"""Many scores as one: the interquartile mean and its bootstrap interval (Agarwal et al. 2021, arXiv 2108.13264)."""

from __future__ import annotations

import numpy as np
from scipy.stats import trim_mean

CHUNK = 256  # resamples at a time, which bounds memory


def iqm(scores: np.ndarray) -> float:
    """Mean of the middle half of all scores, (runs, tasks) or of any other shape."""
    return float(trim_mean(np.asarray(scores, np.float64), proportiontocut=0.25, axis=None))


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
        found.append(trim_mean(sample, proportiontocut=0.25, axis=1))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(found), [tail, 100 - tail])
    return float(low), float(high)
