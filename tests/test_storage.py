"""Replay storage against a plain-list model, and what its samples are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.rows import Rows, split
from replay.storage import Storage, StorageSpec


def segments(start: int, lengths: list[int], observation_size: int = 2, terminal: bool = False) -> Rows:
    """Segments of the given numbers of transitions. Row contents count up, so each can be told from every other."""
    total = sum(length + 1 for length in lengths)
    number = np.arange(start, start + total, dtype=np.float32)
    last = np.zeros(total, bool)
    last[np.cumsum([length + 1 for length in lengths]) - 1] = True
    rewards = np.where(last, 0, number).astype(np.float32)
    observations = np.repeat(number[:, None], observation_size, axis=1)
    actions = np.where(last, 0, number).astype(np.float32)[:, None]
    terminals = np.zeros(total, bool)
    if terminal:
        terminals[np.flatnonzero(last) - 1] = True
    return Rows(observations, actions, rewards, terminals, last)


def transitions(rows: Rows) -> list[tuple[float, float, float, bool]]:
    """(observation, reward, next observation, terminal) of every transition, in order."""
    return [
        (
            float(rows.observations[i, 0]),
            float(rows.rewards[i]),
            float(rows.observations[i + 1, 0]),
            bool(rows.terminals[i]),
        )
        for i in range(len(rows.last))
        if not rows.last[i]
    ]


@settings(max_examples=60, deadline=None)
@given(
    pushes=st.lists(
        st.tuples(st.integers(0, 1), st.lists(st.integers(1, 7), min_size=1, max_size=3), st.booleans()),
        min_size=1,
        max_size=25,
    ),
    capacity=st.integers(24, 60),
)
def test_ring_holds_the_newest_transitions(pushes: list[tuple[int, list[int], bool]], capacity: int) -> None:
    spec = StorageSpec((2, 3), 1, capacity, segment_length=4)
    storage = Storage(spec, seed=0)
    model: list[list[Rows]] = [[], []]
    start = 1
    for task, lengths, terminal in pushes:
        rows = segments(start, lengths, spec.observation_sizes[task], terminal)
        start += len(rows.last)
        storage.append(task, rows)
        model[task].append(rows)
    for task in (0, 1):
        ring = storage.rings[task]
        everything = [transition for rows in model[task] for transition in transitions(rows)]
        held = everything[len(everything) - ring.transitions :]
        if not held:
            continue
        index = ring.draw(np.random.default_rng(1), 600)
        following = (index + 1) % len(ring.rows.last)
        drawn = {
            (
                float(ring.rows.observations[i, 0]),
                float(ring.rows.rewards[i]),
                float(ring.rows.observations[j, 0]),
                bool(ring.rows.terminals[i]),
            )
            for i, j in zip(index, following, strict=True)
        }
        assert drawn <= set(held), "a sample that was never pushed, or was overwritten"
        if len(held) <= 40:  # 600 draws miss one of 40 with probability 1e-5
            assert drawn == set(held)
        rows_pushed = sum(len(rows.last) for rows in model[task])
        assert ring.used == min(rows_pushed, spec.rows_per_task)


@settings(max_examples=80, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), cut=st.integers(1, 24), terminal=st.booleans())
def test_split_keeps_every_transition(lengths: list[int], cut: int, terminal: bool) -> None:
    rows = segments(1, lengths, terminal=terminal)
    head, rest = split(rows, cut)
    assert head.last[-1]
    assert head.transitions == min(cut, rows.transitions)
    together = transitions(head) + (transitions(rest) if rest is not None else [])
    assert together == transitions(rows)
    assert (rest is None) == (cut >= rows.transitions)


def test_samples_are_padded_balanced_and_uniform() -> None:
    storage = Storage(StorageSpec((1, 3), 2, 100, 10), seed=3)
    for task, (size, count) in enumerate(((1, 80), (3, 10))):
        rows = segments(1, [10] * (count // 10), size)
        storage.append(task, rows._replace(actions=np.repeat(rows.actions, 2, axis=1)))
    batches = storage.sample(num_batches := 50, 200)
    assert batches.observations.shape == (num_batches, 200, 3)
    small = batches.task_ids == 0
    assert not batches.observations[small][:, 1:].any(), "padding must be zero"
    assert (batches.next_observations[..., 0] == batches.observations[..., 0] + 1).all()
    assert (batches.masks == 1.0).all()
    # The task is drawn first: 80 and 10 stored transitions, equal shares. Standard deviation 0.005.
    assert abs(small.mean() - 0.5) < 0.025
    # Within a task all transitions are equally likely: expected 62.5 of each of 80, standard deviation 7.9.
    _, counts = np.unique(batches.observations[small][:, 0], return_counts=True)
    assert len(counts) == 80 and counts.min() > 25 and counts.max() < 110


def test_terminal_is_a_mask_of_zero() -> None:
    storage = Storage(StorageSpec((2,), 1, 50, 5), seed=0)
    storage.append(0, segments(1, [5, 5], terminal=True))
    batches = storage.sample(1, 500)
    ends = np.isin(batches.observations[0, :, 0], [5.0, 11.0])
    assert ((batches.masks[0] == 0.0) == ends).all()


def test_state_restores_the_very_next_sample() -> None:
    spec = StorageSpec((2,), 1, 50, 5)
    one, other = Storage(spec, seed=0), Storage(spec, seed=9)
    one.append(0, segments(1, [5, 5]))
    one.widen(0, -1.5, 2.5)
    one.sample(2, 8)
    for mine, theirs in zip(other.rings[0].rows, one.rings[0].rows, strict=True):
        mine[...] = theirs
    other.load_state(one.state())
    for mine, theirs in zip(other.sample(2, 8), one.sample(2, 8), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_memory_is_what_the_spec_says() -> None:
    spec = StorageSpec((223, 67), 38, 10_000, 32)
    arrays = [array for ring in Storage(spec, 0).rings for array in ring.rows]
    assert sum(array.nbytes for array in arrays) == spec.nbytes
    content = 10_000 * sum(4 * (size + 38 + 1) + 2 for size in (223, 67))
    assert spec.nbytes <= 1.06 * content


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (segments(1, [200]), "does not fit"),
        (Rows(*(array[:-1] for array in segments(1, [5]))), "end with a last row"),
    ],
)
def test_impossible_pushes_are_refused(rows: Rows, message: str) -> None:
    storage = Storage(StorageSpec((2,), 1, 50, 5), seed=0)
    with pytest.raises(ValueError, match=message):
        storage.append(0, rows)
