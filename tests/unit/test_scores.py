"""Scores of the benchmarks, and their interquartile mean and its interval, compared with rliable 1.2.0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.benchmarks.catalogue import all_tasks, normalized
from dashboards.report.aggregate import iqm, iqm_interval

# (runs, tasks)
SCORES = np.array(
    [
        [1.78, 0.68, 0.344, 0.055, 0.234, 0.593, 0.399],
        [0.193, 0.711, 0.97, 0.509, 0.742, 0.432, 1.686],
        [0.411, 0.229, 0.926, 0.536, 0.213, 0.615, 0.347],
        [0.51, 1.266, 0.579, 0.425, 0.762, 0.421, 0.594],
        [0.818, 0.096, 0.212, 0.828, 0.043, 0.638, 1.404],
    ]
)
# From four calls of rliable.library.get_interval_estimates with metrics.aggregate_iqm and reps=20000. The interval's
# ends differ from call to call by 0.002 and 0.003.
RLIABLE_IQM, RLIABLE_LOW, RLIABLE_HIGH = 0.5393684210526315, 0.4249, 0.6553


def test_iqm_and_interval_are_those_of_rliable() -> None:
    assert iqm(SCORES) == pytest.approx(RLIABLE_IQM, abs=1e-6)
    low, high = iqm_interval(SCORES, resamples=20_000)
    assert low == pytest.approx(RLIABLE_LOW, abs=0.004) and high == pytest.approx(RLIABLE_HIGH, abs=0.004)


@given(st.lists(st.lists(st.floats(-10, 10), min_size=4, max_size=4), min_size=1, max_size=6))
def test_the_interval_lies_within_the_scores_and_is_repeatable(rows: list[list[float]]) -> None:
    scores = np.array(rows)
    low, high = iqm_interval(scores, resamples=300)
    assert scores.min() - 1e-9 <= low <= high <= scores.max() + 1e-9
    assert iqm_interval(scores, resamples=300) == (low, high)
    if len(rows) == 1:
        assert low == pytest.approx(iqm(scores)) == high


def test_the_middle_half_is_what_counts() -> None:
    scores = np.array([[-1e9, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 1e9]])
    assert iqm(scores) == pytest.approx(2.5)


def test_scores_are_those_of_the_communities() -> None:
    tasks = all_tasks()
    assert normalized(tasks["dmc/dog-run"], 250.0, 0.0) == 0.25
    assert normalized(tasks["metaworld/reach"], 1500.0, 0.6) == 0.6
