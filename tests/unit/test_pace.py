"""The learner finds the fastest number of threads, whatever other processes run, and its trials cost little."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.scale.pace import HASTY_LOSS, WORTH, Pace, steps

UPDATES = 4  # in a request

# {busy processes beside the learner: {threads: seconds of an update}}, measured on two cores at several widths, with
# threads that sleep when they wait and with threads that spin.
TABLES: list[dict[int, dict[int, float]]] = [
    {0: {1: 0.124, 2: 0.071}, 1: {1: 0.123, 2: 0.248}},
    {0: {1: 0.127, 2: 0.093}, 1: {1: 0.122, 2: 0.135}, 3: {1: 0.244, 2: 0.195}},
    {0: {1: 0.361, 2: 0.196}, 1: {1: 0.347, 2: 0.562}},
    {0: {1: 0.380, 2: 0.211}, 1: {1: 0.379, 2: 0.397}},
    {0: {1: 0.209, 2: 0.104}, 1: {1: 0.185, 2: 0.429}},
]


@dataclass
class Spent:
    """The time of some updates: their seconds, their number, and the seconds of the longest request."""

    seconds: float = 0.0
    updates: int = 0
    longest: float = 0.0


def go_on(pace: Pace, seconds: float, cost: Callable[[int], float]) -> Spent:
    """Make updates for `seconds`. `cost` gives the seconds of an update from the number of threads."""
    spent = Spent()
    while spent.seconds < seconds:
        request = UPDATES * cost(pace.threads)
        pace.took(request, UPDATES)
        spent.seconds += request
        spent.updates += UPDATES
        spent.longest = max(spent.longest, request)
    return spent


def test_numbers_of_threads_that_are_tried() -> None:
    assert [steps(most) for most in (1, 2, 3, 4, 16)] == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 4, 8, 15, 16]]


@settings(deadline=None, max_examples=60)
@given(
    costs=st.lists(st.floats(0.05, 1.0), min_size=2, max_size=6),
    stale=st.dictionaries(st.integers(0, 5), st.floats(0.01, 10.0)),
    first=st.integers(0, 5),
)
def test_the_fastest_is_found_whatever_was_known(costs: list[float], stale: dict[int, float], first: int) -> None:
    """The cost may rise and fall with the number of threads in any way."""
    count = len(costs)
    known = {threads: cost for threads, cost in stale.items() if threads < count}
    pace = Pace(range(count), first % count, known)
    go_on(pace, 2000.0, lambda threads: costs[threads])
    assert costs[pace.settled] <= WORTH * min(costs)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1 << 30),
    count=st.integers(2, 6),
    spread=st.floats(1.1, 50.0),
    hold=st.integers(1, 200),
)
def test_trials_lose_little_even_if_everything_changes_all_the_time(
    seed: int, count: int, spread: float, hold: int
) -> None:
    """Every cost is drawn anew after `hold` requests, up to `spread` times the least."""
    rng = np.random.default_rng(seed)
    left, costs = 0, np.ones(count)

    def cost(threads: int) -> float:
        nonlocal left, costs
        if left == 0:
            left, costs = hold, 0.05 * rng.uniform(1.0, spread, count)
        left -= 1
        return float(costs[threads])

    pace = Pace(range(count), count - 1)
    longest = 0.5
    for _ in range(300):
        longest = max(longest, go_on(pace, 1.0, cost).longest)
        assert pace.lost <= HASTY_LOSS * pace.total + 2 * longest


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("begins", [0, 1])
def test_within_15_percent_of_the_best_fixed_number(table: dict[int, dict[int, float]], begins: int) -> None:
    """Neighbours start and stop every five minutes. The time until the learner notices counts."""
    rng = np.random.default_rng(0)
    pace = Pace([1, 2], 2)
    rounds = list(itertools.permutations(table))
    for neighbours in itertools.chain(*rounds[begins:], *rounds):
        costs = table[neighbours]

        def cost(threads: int, costs: dict[int, float] = costs) -> float:
            return costs[threads] * rng.uniform(0.9, 1.1)

        spent = go_on(pace, 300.0, cost)
        assert spent.seconds <= 1.15 * spent.updates * min(costs.values()), (neighbours, pace.known)


def test_slower_than_one_thread_would_be_is_noticed_at_once() -> None:
    pace = Pace([1, 2], 2, {1: 0.124, 2: 0.071})
    go_on(pace, 60.0, lambda threads: {1: 0.124, 2: 0.071}[threads])
    assert pace.settled == 2
    busy = {1: 0.123, 2: 0.248}
    assert go_on(pace, 2.5, lambda threads: busy[threads]).seconds < 4.0
    assert pace.settled == 1


def test_what_is_fixed_stays() -> None:
    pace = Pace([3], 3)
    go_on(pace, 100.0, lambda threads: 0.1 * threads)
    assert (pace.threads, pace.settled, pace.lost) == (3, 3, 0.0)
