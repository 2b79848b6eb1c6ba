"""Scores of the benchmarks, and their interquartile mean and its interval, compared with rliable 1.2.0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.benchmarks.catalogue import all_tasks, normalized
from cluster.config.schema import Config
from cluster.plan.plan import make_plan
from dashboards.report.aggregate import (
    improvement_interval,
    iqm,
    iqm_interval,
    performance_profile,
    probability_of_improvement,
)

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


OURS = np.array(
    [
        [0.64, 0.27, 0.04, 0.02],
        [0.81, 0.91, 0.61, 0.73],
        [0.54, 0.94, 0.82, 0.0],
        [0.86, 0.03, 0.73, 0.18],
        [0.86, 0.54, 0.3, 0.42],
    ]
)
THEIRS = np.array([[0.81, 0.22, 0.77, 0.75], [0.72, 0.48, 1.1, 1.08], [0.79, 0.75, 0.79, 0.49]])  # with one tie


def test_probability_of_improvement_and_profile_are_those_of_rliable() -> None:
    """From metrics.probability_of_improvement, its interval with 20,000 resamples, and create_performance_profile."""
    assert probability_of_improvement(OURS, THEIRS) == pytest.approx(0.3416666666666666)
    assert improvement_interval(OURS, THEIRS, resamples=20_000) == pytest.approx((0.1833, 0.5083), abs=0.01)
    profile = performance_profile(OURS, np.linspace(0, 1, 6))
    np.testing.assert_allclose(profile, [0.95, 0.75, 0.65, 0.5, 0.3, 0.0])


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_one_of_two_improves_on_the_other(ours: int, theirs: int, tasks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, 3, (ours, tasks)), rng.integers(0, 3, (theirs, tasks))
    assert probability_of_improvement(one, other) + probability_of_improvement(other, one) == pytest.approx(1.0)


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


def test_the_kitchen_is_scored_by_its_tasks_also_in_a_run() -> None:
    """A run's tasks are copies of the catalogue's, with the run's options."""
    (task,) = make_plan(Config(tasks=("robotics/FrankaKitchen",))).tasks
    assert normalized(task, 3.5, 0.0) == 0.5
    (reach,) = make_plan(Config(tasks=("robotics/FetchReach",))).tasks
    assert normalized(reach, -10.0, 0.4) == 0.4
