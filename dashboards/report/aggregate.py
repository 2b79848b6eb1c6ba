"""Aggregate scores: means, interquartile means, and bootstrap intervals (Agarwal et al. 2021, arXiv 2108.13264)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

CHUNK = 256  # resamples drawn at a time; bounds memory


def finite(values: Iterable[float | None]) -> list[float]:
    """Return the finite values. Files have null for NaN and infinite values."""
    return [value for value in values if value is not None and math.isfinite(value)]


def iqm(scores: np.ndarray) -> float:
    """Return the mean of the middle half of all scores, of shape (runs, tasks) or any other."""
    return float(middle_half(np.asarray(scores, np.float64), None))


def middle_half(scores: np.ndarray, axis: int | None) -> Any:
    """Return the mean of the middle half, along an axis or over all values: a quarter is cut at each end, rounded down.

    This is scipy.stats.trim_mean with a cut of 0.25. Loading scipy.stats takes every run two seconds of CPU.
    """
    if axis is None:
        scores, axis = scores.ravel(), 0
    ordered = np.moveaxis(np.sort(scores, axis=axis), axis, 0)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut].mean(axis=0)


def iqm_interval(
    scores: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return bounds of the IQM by percentile bootstrap. Runs (rows) are resampled separately for each task (column).

    With a single run, both bounds are its IQM.
    """
    return interval(scores, lambda drawn: middle_half(drawn.reshape(len(drawn), -1), 1), confidence, resamples, seed)


def iqm_of_means_interval(
    scores: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Like `iqm_interval`, for the IQM of task means over rows. For a single run, whose rows are episodes."""
    return interval(scores, lambda drawn: middle_half(drawn.mean(axis=1), 1), confidence, resamples, seed)


def mean_interval(
    scores: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Like `iqm_interval`, for the mean of all scores."""
    return interval(scores, lambda drawn: drawn.mean(axis=(1, 2)), confidence, resamples, seed)


def interval(
    scores: np.ndarray, statistic: Callable[[np.ndarray], Any], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Return bounds of a statistic, which maps (resamples, rows, tasks) to one number for each resample."""
    scores = np.asarray(scores, np.float64)
    rows, tasks = scores.shape
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    for begun in range(0, resamples, CHUNK):
        drawn = rng.integers(rows, size=(min(CHUNK, resamples - begun), rows, tasks))
        found.append(statistic(np.take_along_axis(scores[None], drawn, axis=1)))
    tail = 50 * (1 - confidence)
    with np.errstate(invalid="ignore"):  # scores may be NaN or infinite
        low, high = np.percentile(np.concatenate(found), [tail, 100 - tail])
    return float(low), float(high)


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the probability that a run of ours scores higher than one of theirs on a task, in the mean over tasks.

    Both are (runs, tasks) with the same tasks. A tie counts half. This is the Mann-Whitney statistic of each task.
    """
    return float(_wins(ours[None], theirs[None])[0])


def _wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the same for resamples (resamples, runs, tasks): (resamples,)."""
    gaps = ours[:, :, None] - theirs[:, None]
    found: np.ndarray = ((gaps > 0) + 0.5 * (gaps == 0)).mean(axis=(1, 2, 3))
    return found


def improvement_interval(
    ours: np.ndarray, theirs: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return bounds of the probability of improvement. Runs of both are resampled separately for each task."""
    rng, found = np.random.default_rng(seed), []
    for begun in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - begun)
        drawn = [
            np.take_along_axis(scores[None], rng.integers(len(scores), size=(count, *scores.shape)), axis=1)
            for scores in (np.asarray(ours, np.float64), np.asarray(theirs, np.float64))
        ]
        found.append(_wins(*drawn))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(found), [tail, 100 - tail])
    return float(low), float(high)


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the share of runs and tasks whose score is above each threshold, (thresholds,), for (runs, tasks)."""
    found: np.ndarray = (np.asarray(scores).ravel()[:, None] > np.asarray(thresholds)).mean(axis=0)
    return found
