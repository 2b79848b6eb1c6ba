"""Replay storage, compared with a model of plain lists, and the content of its samples."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.store.gather import KERNEL, Piece, gather, gather_numpy
from replay.store.rows import CONTEXT, LAST, TERMINAL, Push, Rows, split
from replay.store.storage import StorageSpec, cut
from tests.support.streams import held, segments, spec, storage, transitions

LOCK = threading.Lock()


@settings(max_examples=60, deadline=None)
@given(
    pushes=st.lists(
        st.tuples(st.integers(0, 1), st.lists(st.integers(1, 7), min_size=1, max_size=3), st.booleans()),
        min_size=1,
        max_size=25,
    ),
    capacity=st.integers(24, 60),
)
def test_ring_holds_the_newest_segments(pushes: list[tuple[int, list[int], bool]], capacity: int) -> None:
    of = spec(capacity=capacity, observation_shapes=((2,), (3,)), segment_length=4, push_rows=24)
    made = storage(of)
    model: list[list[Any]] = [[], []]
    segment_ends: list[list[int]] = [[], []]
    start = 1
    for task, lengths, terminal in pushes:
        rows = segments(start, lengths, of.observation_shapes[task][0], terminal)
        start += len(rows.flags)
        made.append(Push({task: rows}, {}))
        model[task] += transitions(rows)
        segment_ends[task] += list(np.cumsum(lengths) + (segment_ends[task][-1] if segment_ends[task] else 0))
    for task in (0, 1):
        ring = made.rings[task]
        found = transitions(held(ring))
        assert found == model[task][len(model[task]) - len(found) :]
        assert ring.transitions == len(found)
        assert len(model[task]) - len(found) in [0, *segment_ends[task]], "segments go as a whole"
        if len(model[task]) > len(found):  # rows were dropped, but at most a push and a segment too many
            assert ring.head - ring.tail > ring.rows - 24 - 8
        if found:
            drawn = ring.draw(np.random.default_rng(1), 600)
            seen = set(ring.observations[drawn % ring.rows, 0].astype(float))
            assert seen <= {one.observation for one in found}
            if len(found) <= 40:  # 600 draws miss one of 40 with probability 1e-5
                assert seen == {one.observation for one in found}


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(5, 5), min_size=60, max_size=120), capacity=st.integers(60, 120))
def test_full_segments_never_leave_less_than_the_capacity(lengths: list[int], capacity: int) -> None:
    made = storage(spec(1, capacity, segment_length=5, push_rows=6))
    for number, length in enumerate(lengths):
        made.append(Push({0: segments(10 * number, [length])}, {}))
        total = 5 * (number + 1)
        assert made.transitions[0] >= min(total, capacity)


def test_making_room_for_a_push_takes_nothing_from_the_capacity() -> None:
    """Look in the midst of a push: a crash at that moment would leave this content."""
    of = spec(1, 100, segment_length=5, push_rows=12)
    made = storage(of)
    between: list[int] = []
    for number in range(60):
        made.append(Push({0: segments(20 * number, [5, 5])}, {}), lambda: between.append(made.transitions[0]))
    assert between and min(between) >= 100


@settings(max_examples=80, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), at=st.integers(0, 24), terminal=st.booleans())
def test_split_keeps_every_transition(lengths: list[int], at: int, terminal: bool) -> None:
    rows = segments(1, lengths, terminal=terminal)
    head, rest = split(rows, at)
    assert (head is None) == (at == 0) and (rest is None) == (at >= rows.transitions)
    assert head is None or (head.last[-1] and head.transitions == min(at, rows.transitions))
    together = [one for part in (head, rest) if part is not None for one in transitions(part)]
    assert together == transitions(rows)


def test_split_keeps_the_context_of_what_is_left() -> None:
    rows = segments(1, [3, 5])
    rows.flags[4:6] = CONTEXT
    head, rest = split(rows, 3)
    assert head is not None and rest is not None
    assert transitions(head) + transitions(rest) == transitions(rows)
    assert rest.flags[0] == CONTEXT and rest.transitions == 3


def test_samples_are_padded_balanced_and_uniform() -> None:
    made = storage(spec(2, 100, observation_shapes=((1,), (3,)), action_size=2, segment_length=10, push_rows=100))
    for task, (size, count) in enumerate(((1, 80), (3, 10))):
        made.append(Push({task: segments(1, [10] * (count // 10), size, actions=2)}, {}))
    out = made.allocate(50, 201)
    for array in out[:5]:
        array.fill(7)
    batches = made.sample(50, 201, LOCK, out)
    assert batches.observations.shape == (50, 201, 3)
    small = batches.task_ids == 0
    assert not batches.observations[small][:, 1:].any(), "padding must be zero"
    assert (batches.next_observations[..., 0] == batches.observations[..., 0] + 1).all()
    assert (batches.masks == 1.0).all()
    assert (batches.rewards == batches.observations[..., 0]).all()
    assert (batches.actions == batches.observations[..., :1]).all()
    # Every batch has half of its 201 rows from each task; the odd row is from either task.
    assert set(small.sum(axis=1)) == {100, 101}
    # Within a task all transitions are equally likely: each of the 80 is expected 62.8 times, standard deviation 7.9.
    _, counts = np.unique(batches.observations[small][:, 0], return_counts=True)
    assert len(counts) == 80 and counts.min() > 25 and counts.max() < 110


@settings(max_examples=50, deadline=None)
@given(weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=8), size=st.integers(1, 300), seed=st.integers(0, 99))
def test_tasks_get_their_share_of_every_batch(weights: list[float], size: int, seed: int) -> None:
    share = np.array(weights) / sum(weights)
    ends = cut(np.random.default_rng(seed), share, size, 400)
    counts = np.diff(ends, axis=1, prepend=0)
    assert (counts.sum(axis=1) == size).all()
    assert (np.abs(counts - size * share) < 1 + 1e-9).all()
    assert np.abs(counts.mean(axis=0) - size * share).max() < 5 * 0.5 / np.sqrt(400) + 1e-9


def test_weights_of_tasks() -> None:
    made = storage(spec(3, weights=(1.0, 2.0, 5.0)))
    made.append(Push({task: segments(1, [5, 5]) for task in range(3)}, {}))
    batches = made.sample(4, 80, LOCK)
    assert np.bincount(batches.task_ids.ravel()).tolist() == [40, 80, 200]


def test_terminal_is_a_mask_of_zero() -> None:
    made = storage(spec(1))
    made.append(Push({0: segments(1, [5, 5], terminal=True)}, {}))
    batches = made.sample(1, 500, LOCK)
    ends = np.isin(batches.observations[0, :, 0], [5.0, 11.0])
    assert ((batches.masks[0] == 0.0) == ends).all()


@settings(max_examples=40, deadline=None)
@given(
    episodes=st.lists(
        st.tuples(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.booleans()), min_size=1, max_size=6
    ),
    n_step=st.integers(1, 7),
    discount=st.sampled_from([0.9, 0.99, 1.0]),
)
def test_n_step_returns(episodes: list[tuple[list[int], bool]], n_step: int, discount: float) -> None:
    """Compare sums, masks and following observations with a loop over plain lists. A segment that is cut within an
    episode ends the sum too: the mask then discounts the value of its last observation by the steps taken."""
    made = storage(spec(1, 500, n_step=n_step, discount=discount, push_rows=200))
    expected = {}
    start = 1
    for lengths, terminal in episodes:
        rows = segments(start, lengths)
        if terminal:
            rows.flags[-2] = TERMINAL
        made.append(Push({0: rows}, {}))
        ends = np.flatnonzero(rows.last)
        for i in np.flatnonzero(~rows.last):
            end = int(ends[ends > i][0])
            steps = min(n_step, end - int(i))
            total = sum(discount**k * float(rows.rewards[i + k]) for k in range(steps))
            stops = bool(rows.flags[i + steps - 1] & TERMINAL)
            mask = 0.0 if stops else discount ** (steps - 1)
            expected[start + int(i)] = (total, mask, start + int(i) + steps)
        start += len(rows.flags)
    batches = made.sample(1, 300, LOCK)
    for j in range(300):
        total, mask, following = expected[int(batches.observations[0, j, 0])]
        assert batches.rewards[0, j] == pytest.approx(total, rel=1e-5)
        assert batches.masks[0, j] == pytest.approx(mask, rel=1e-6)
        assert batches.next_observations[0, j, 0] == following


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("n_step", [1, 3])
def test_stacks_of_frames_are_stored_once(dtype: str, n_step: int) -> None:
    """Cut episodes of frames into segments with context, and compare the sampled stacks with those of the stream."""
    stack, length, capacity = 4, 8, 120
    of = spec(1, capacity, observation_shapes=((3, 2),), dtype=dtype, stack=stack, n_step=n_step, segment_length=length)
    made = storage(of)
    stream: dict[int, list[int]] = {}  # frame number -> numbers of its stack
    number = 1
    for episode in (5, 30, 17, 40, 8, 40, 23):
        frames = list(range(number, number + episode + 1))
        number += episode + 1
        for i, frame in enumerate(frames):
            stream[frame] = [frames[max(0, i - back)] for back in range(stack - 1, -1, -1)]
        for begin in range(0, episode, length):
            stop = min(begin + length, episode)
            context = list(range(max(0, begin - stack + 1), begin))
            order = [*context, *range(begin, stop + 1)]
            flags = np.array([CONTEXT] * len(context) + [0] * (stop - begin) + [LAST], np.uint8)
            pixels = np.array([frames[i] for i in order], dtype).reshape(-1, 1, 1).repeat(3, 1).repeat(2, 2)
            scalars = np.where(flags == 0, 1.0, 0.0).astype(np.float32)
            made.append(Push({0: Rows(pixels, scalars[:, None], scalars, flags)}, {}))
    batches = made.sample(2, 1500, LOCK)
    assert batches.observations.shape == (2, 1500, stack, 3, 2) and batches.observations.dtype == dtype
    for observed in (batches.observations, batches.next_observations):
        assert (observed == observed[..., :1, :1]).all()
    found = batches.observations[..., 0, 0].reshape(-1, stack).astype(int)
    after = batches.next_observations[..., 0, 0].reshape(-1, stack).astype(int)
    for now, then in zip(found.tolist(), after.tolist(), strict=True):
        assert now == stream[now[-1]]
        assert then == stream[then[-1]]
        assert 1 <= then[-1] - now[-1] <= n_step
    assert len(np.unique(found[:, -1])) == made.transitions[0] >= capacity


def test_float16_keeps_what_it_can_and_halves_the_memory() -> None:
    half, whole = (
        spec(1, 1000, observation_shapes=((64,),), dtype="float16"),
        spec(1, 1000, observation_shapes=((64,),)),
    )
    assert half.nbytes < 0.6 * whole.nbytes
    made = storage(half)
    rows = segments(1, [5], 64)
    made.append(Push({0: rows._replace(observations=rows.observations / 3)}, {}))
    batches = made.sample(1, 50, LOCK)
    assert batches.observations.dtype == np.float16
    np.testing.assert_allclose(batches.observations[0, :, 0], batches.rewards[0] / 3, rtol=1e-3)


@pytest.mark.skipif(KERNEL is None and shutil.which("cc") is None, reason="needs a C compiler")
@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 50),
    count=st.integers(0, 40),
    width=st.integers(1, 700),
    offset=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_the_kernel_copies_what_numpy_copies(rows: int, count: int, width: int, offset: int, seed: int) -> None:
    assert KERNEL is not None, "gather.c was not compiled when this was installed"
    rng = np.random.default_rng(seed)
    memory = rng.integers(0, 255, (rows, width + 5), dtype=np.uint8)
    source = memory[:, offset : offset + width]
    place = rng.permutation(count)
    at = rng.integers(0, rows, count)
    outputs = []
    for copy in (gather, gather_numpy):
        out = np.zeros((count, width + 3), np.uint8)
        copy([Piece(source, at, out[:, :width]), Piece(memory[:, 1:3], at, out[:, width : width + 2])], place)
        outputs.append(out)
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_memory_is_what_the_spec_says() -> None:
    """Memory is at most 1.06 times one observation (of a stack: one frame), action, reward and flag a transition."""
    plain = StorageSpec(
        tasks=("a", "b"),
        observation_shapes=((223,), (67,)),
        action_size=38,
        capacity=(100_000, 50_000),
        segment_length=32,
        push_rows=132,
    )
    content = 100_000 * (4 * (223 + 38 + 1) + 1) + 50_000 * (4 * (67 + 38 + 1) + 1)
    assert plain.nbytes <= 1.06 * content
    made = storage(plain)
    assert sum(ring.rows * (ring.stride + 1) for ring in made.rings) <= plain.nbytes
    frames = StorageSpec(
        tasks=("pong",),
        observation_shapes=((84, 84),),
        action_size=1,
        capacity=(100_000,),
        segment_length=128,
        push_rows=1100,
        dtype="uint8",
        stack=4,
    )
    assert frames.nbytes <= 1.06 * 100_000 * (84 * 84 + 9)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (segments(1, [200]), "longer than push_rows 60"),
        (Rows(*(array[:-1] for array in segments(1, [5]))), "end with a last row"),
        (segments(1, [5], size=3), r"shape \(6, 3\), not \(6, 2\)"),
        (segments(1, [5], actions=2), "actions of task 0"),
    ],
)
def test_impossible_pushes_are_refused(rows: Rows, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        storage(spec(1, 50)).check(0, rows)
    with pytest.raises(ValueError, match="task 1 is not one of 1"):
        storage(spec(1, 50)).check(1, segments(1, [5]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float64"}, "must be one of"),
        ({"weights": (1.0,)}, "of one length"),
        ({"weights": (1.0, 0.0)}, "positive"),
        ({"observation_shapes": ((2,), (2, 2))}, "only if all are flat"),
        ({"stack": 0}, "positive"),
    ],
)
def test_impossible_specs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(2, **changes)


def test_one_writer_and_four_samplers_tear_no_row() -> None:
    """Rows are copied without a lock, and a few dozen pushes overwrite the ring. The numbers in a torn row disagree."""
    assert torn_rows(seconds=3.0) == Counter(torn=0)


@pytest.mark.long
def test_one_writer_and_four_samplers_tear_no_row_for_a_minute() -> None:
    assert torn_rows(seconds=60.0) == Counter(torn=0)


def torn_rows(seconds: float) -> Counter[str]:
    """Sample in four threads rows that a fifth thread overwrites. Return the number of torn rows, as `torn`."""
    size = 200
    of = spec(1, 3000, observation_shapes=((size,),), segment_length=32, push_rows=330, n_step=2)
    made, lock, stop = storage(of), threading.Lock(), threading.Event()
    found: Counter[str] = Counter(torn=0)
    failures: list[BaseException] = []
    rows_sampled = [0] * 4

    def write() -> None:
        number = 1
        while not stop.is_set():
            rows = segments(number % 1_000_000, [32] * 10, size)
            with lock:
                made.append(Push({0: rows}, {}))
            number += len(rows.flags)

    def read(me: int) -> None:
        out = made.allocate(1, 512)
        while not stop.is_set():
            batches = made.sample(1, 512, lock, out)
            now, then = batches.observations[0], batches.next_observations[0]
            whole = (now == now[:, :1]).all(axis=1) & (then == then[:, :1]).all(axis=1)
            step = then[:, 0] - now[:, 0]
            whole &= (step == 2) | ((step == 1) & (batches.rewards[0] == now[:, 0]))
            whole &= batches.actions[0, :, 0] == now[:, 0]
            found["torn"] += int(np.count_nonzero(~whole))
            rows_sampled[me] += 512

    def guarded(work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            failures.append(error)
            stop.set()

    made.append(Push({0: segments(1, [32] * 10, size)}, {}))
    threads = [threading.Thread(target=guarded, args=(write,))]
    threads += [threading.Thread(target=guarded, args=(read, me)) for me in range(4)]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert min(rows_sampled) > 0 and made.rings[0].head > 2 * made.rings[0].rows, "too little was written or read"
    print(f"{sum(rows_sampled):,} rows sampled while {made.rings[0].head:,} were written")
    return found
