"""Many scores as one: means, interquartile means, their bootstrap intervals (Agarwal et al. 2021, arXiv 2108.13264)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

CHUNK = 256  # resamples at a time, which bounds memory


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that are numbers. Files have null for NaN and the infinite ones."""
    return [value for value in values if value is not None and math.isfinite(value)]


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
    return interval(scores, lambda drawn: middle_half(drawn.reshape(len(drawn), -1), 1), confidence, resamples, seed)


def iqm_of_means_interval(
    scores: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The same of the IQM of each task's mean over rows: of a single run, whose rows are episodes."""
    return interval(scores, lambda drawn: middle_half(drawn.mean(axis=1), 1), confidence, resamples, seed)


def mean_interval(
    scores: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The same of the mean of everything."""
    return interval(scores, lambda drawn: drawn.mean(axis=(1, 2)), confidence, resamples, seed)


def interval(
    scores: np.ndarray, statistic: Callable[[np.ndarray], Any], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Bounds of a statistic, which gives one number for each of (resamples, rows, tasks)."""
    scores = np.asarray(scores, np.float64)
    rows, tasks = scores.shape
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    for begun in range(0, resamples, CHUNK):
        drawn = rng.integers(rows, size=(min(CHUNK, resamples - begun), rows, tasks))
        found.append(statistic(np.take_along_axis(scores[None], drawn, axis=1)))
    tail = 50 * (1 - confidence)
    with np.errstate(invalid="ignore"):  # of scores that are no numbers
        low, high = np.percentile(np.concatenate(found), [tail, 100 - tail])
    return float(low), float(high)
