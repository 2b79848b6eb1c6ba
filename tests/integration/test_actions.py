"""Tests of action scaling: actions reach all of their space and nothing outside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.backends.actions import ActionScaler, box_scaler, mujoco_scaler
from actors.benchmarks.catalogue import all_tasks
from actors.environments import make_environment

FLOATS = (np.float16, np.float32, np.float64)
WHOLE = (np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64)
MOST_TRIED = 2000  # in dimensions of whole numbers that span less than this, every value is tried


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box:
    """Draw boxes of every dtype. Bounds go from denormal to the largest, and are on both sides, one side or none."""
    dtype = np.dtype(draw(st.sampled_from(FLOATS + WHOLE)))
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 2), (2, 1, 3)]))
    size = math.prod(shape)
    if dtype.kind == "f":
        number: Any = st.floats(width=8 * dtype.itemsize, allow_nan=False, allow_infinity=False)
        infinity: Any = math.inf
    else:
        # gymnasium's Box takes 64-bit bounds up to 2^63 - 2.
        info = np.iinfo(dtype)
        number = st.integers(int(info.min), int(info.max) - (dtype.itemsize == 8)) | st.integers(0, 6)
        infinity = None if dtype.kind == "u" or dtype.itemsize == 8 else math.inf  # gymnasium casts inf wrongly here
    low, high = [], []
    for _ in range(size):
        least, most = sorted([draw(number), draw(number)])
        low.append(-infinity if infinity and draw(st.integers(0, 3)) == 0 else least)
        high.append(infinity if infinity and draw(st.integers(0, 3)) == 0 else most)
    whole_bounds = dtype.kind == "f" or not any(math.isinf(bound) for bound in low + high)
    kind = dtype if whole_bounds else np.dtype(np.float64)  # a box of whole numbers takes infinities as floats
    return spaces.Box(np.array(low, kind).reshape(shape), np.array(high, kind).reshape(shape), dtype=dtype.type)


def taken(scaler: ActionScaler, space: spaces.Box, actions: Any) -> np.ndarray:
    """Return the action of the space for one action of the policy, or for one number in every dimension."""
    size = math.prod(space.shape)
    found: np.ndarray = scaler(np.broadcast_to(np.asarray(actions, np.float32), (1, size)))[0].reshape(space.shape)
    return found


@settings(max_examples=2000, deadline=None)
@given(boxes(), st.data())
def test_every_action_is_in_its_space_and_both_ends_are_reached(space: spaces.Box, data: st.DataObject) -> None:
    scaler = box_scaler(space)
    size = math.prod(space.shape)
    drawn = data.draw(st.lists(st.floats(-1.0, 1.0, width=32), min_size=size, max_size=size))
    for action in (drawn, -1.0, 1.0, 0.0, np.nextafter(np.float32(1), np.float32(0)), np.float32(-1e-40)):
        found = taken(scaler, space, action)
        assert found.dtype == space.dtype and space.contains(found), (action, found)
    lowest, highest = taken(scaler, space, -1.0), taken(scaler, space, 1.0)
    both = space.bounded_below & space.bounded_above
    np.testing.assert_array_equal(lowest[space.bounded_below], space.low[space.bounded_below])
    np.testing.assert_array_equal(highest[space.bounded_above], space.high[space.bounded_above])
    assert np.all(lowest[~both] <= highest[~both])
    if space.dtype.kind in "iu":
        for place in np.flatnonzero(both):
            low, high = int(space.low.flat[place]), int(space.high.flat[place])
            if high - low < MOST_TRIED:
                middles = (2 * np.arange(high - low + 1) + 1) / (high - low + 1) - 1
                found = scaler(np.repeat(middles[:, None], size, axis=1).astype(np.float32))[:, place]
                np.testing.assert_array_equal(found, np.arange(low, high + 1).astype(space.dtype))


def test_bounded_boxes_are_spread_evenly_whatever_their_size() -> None:
    for most in (1e-30, 0.2, 1.0, 1e3, 1e9, 1e10, 3e38):
        scaler = box_scaler(spaces.Box(-most, most, (1,), np.float32))
        found = scaler(np.array([[-1.0], [-0.5], [0.0], [0.5], [1.0]], np.float32))[:, 0]
        np.testing.assert_allclose(found / np.float32(most), [-1.0, -0.5, 0.0, 0.5, 1.0], rtol=1e-6)


def test_boxes_that_are_not_bounded_follow_the_rule_in_the_manual() -> None:
    space = spaces.Box(np.array([5.0, -np.inf, -np.inf]), np.array([np.inf, 5.0, np.inf]), dtype=np.float64)
    scaler = box_scaler(space)
    steps = np.repeat(np.array([[-1.0], [0.25], [1.0]], np.float32), 3, axis=1)
    np.testing.assert_array_equal(scaler(steps), [[5.0, 3.0, -1.0], [6.25, 4.25, 0.25], [7.0, 5.0, 1.0]])
    whole = box_scaler(spaces.Box(np.array([5.0, -np.inf]), np.array([np.inf, np.inf]), dtype=np.int32))
    np.testing.assert_array_equal(whole(steps[:, :2]), [[5, -1], [6, 0], [7, 1]])


def test_whole_numbers_share_the_interval_in_equal_parts() -> None:
    scaler = box_scaler(spaces.Box(-1, 3, (1,), np.int8))
    found = scaler(np.linspace(-1, 1, 10_001, dtype=np.float32)[:, None])[:, 0]
    counts = np.unique(found, return_counts=True)
    np.testing.assert_array_equal(counts[0], [-1, 0, 1, 2, 3])
    assert counts[1].max() - counts[1].min() <= 2
    switch = box_scaler(spaces.Box(0, 1, (1,), bool))
    assert switch(np.array([[-0.1], [0.1]], np.float32))[:, 0].tolist() == [False, True]


@pytest.mark.parametrize(("low", "high"), [(np.nan, 1.0), (0.0, np.nan), (1.0, 0.0)])
def test_bounds_that_are_none_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="not in order"):
        ActionScaler(np.array([low]), np.array([high]))


def test_what_mujoco_calls_unlimited_is_no_bound_and_the_usual_costs_nothing() -> None:
    assert mujoco_scaler(np.array([-1e10]), np.array([1e10])).identity
    actions = np.array([[0.5]], np.float32)
    assert mujoco_scaler(np.array([-1.0], np.float32), np.array([1.0], np.float32))(actions) is actions


@pytest.mark.parametrize("backend", ["envpool", "dm_control"])
def test_both_backends_of_the_suite_agree_on_bounds(backend: str) -> None:
    for name, least, most in (("quadruped-run", -1.0, 1.1), ("lqr-lqr_2_1", -1.0, 1.0)):
        environment = make_environment(backend, all_tasks()[f"dmc/{name}"], [0])
        size = environment.task.action_size
        ends = environment.scale(np.stack([-np.ones(size, np.float32), np.ones(size, np.float32)]))
        assert (ends.min(), ends.max()) == (least, most)
        environment.close()
