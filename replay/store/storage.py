"""A ring of rows for every task, and batches drawn from them.

Next observations are implicit: a transition is a row and the row after it. Storing only segment ends twice takes 46
percent less memory than explicit next observations and costs nothing when sampling.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from replay.store.gather import Piece, gather
from replay.store.ring import TaskRing, row_stride
from replay.store.rows import TERMINAL, Batches, Push, Rows
from replay.store.soundness import LARGEST_NUMBER, Dropped, drop_bad_segments

DTYPES = ("float32", "float16", "uint8")
# Episodes that end inside a segment take a row more each; room is made for one in so many steps.
STEPS_PER_EPISODE = 100


@dataclass(frozen=True, kw_only=True)
class StorageSpec:
    """Shapes and sizes of a storage.

    Attributes:
        tasks: names, by which a snapshot's content finds its place.
        observation_shapes: of one observation of each task, or one frame where they are stacked. They may differ only
            if they are flat.
        action_size: of the widest task; smaller tasks use the first of it.
        capacity: transitions kept of each task.
        segment_length: transitions that a segment usually has.
        push_rows: rows that a push may have of a task. So many are kept spare: storing a push takes nothing from the
            capacity before it is whole.
        dtype: of stored and sampled observations: float32, float16 or uint8.
        stack: frames in an observation as it is sampled, on an axis before the frame's own; 1 adds none.
        n_step: steps of a transition as it is sampled.
        discount: of rewards within these steps.
        weights: how often a task is drawn, relative to others; () for equally often.
    """

    tasks: tuple[str, ...]
    observation_shapes: tuple[tuple[int, ...], ...]
    action_size: int
    capacity: tuple[int, ...]
    segment_length: int
    push_rows: int
    dtype: str = "float32"
    stack: int = 1
    n_step: int = 1
    discount: float = 0.99
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        counts = {len(self.tasks), len(self.observation_shapes), len(self.capacity), len(self.weights or self.tasks)}
        if counts != {len(self.tasks)} or not self.tasks:
            raise ValueError(f"tasks, observation_shapes, capacity and weights must be of one length: {self}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} must be one of {DTYPES}")
        if len(set(self.observation_shapes)) > 1 and any(len(shape) != 1 for shape in self.observation_shapes):
            raise ValueError(f"observation_shapes {self.observation_shapes} may differ only if all are flat")
        least = min(*self.capacity, self.action_size, self.segment_length, self.push_rows, self.stack, self.n_step)
        if least < 1 or (self.weights and min(self.weights) <= 0):
            raise ValueError(f"sizes and weights must be positive: {self}")

    @property
    def num_tasks(self) -> int:
        return len(self.tasks)

    @property
    def probabilities(self) -> np.ndarray:
        """(tasks,) float64: how likely each task is to be drawn."""
        weights = np.array(self.weights or [1.0] * self.num_tasks)
        found: np.ndarray = weights / weights.sum()
        return found

    @property
    def widest(self) -> tuple[int, ...]:
        """Shape of an observation in a batch."""
        shape = max(self.observation_shapes)
        return (self.stack, *shape) if self.stack > 1 else shape

    def rows(self, task: int) -> int:
        """Rows that hold `capacity` transitions, a push more, and a segment that is given up only whole.

        Counted in are a segment's last row and its frames of context, and a row more every STEPS_PER_EPISODE. With
        shorter episodes, or shorter segments than `segment_length`, fewer transitions are kept.
        """
        capacity = self.capacity[task]
        segments = -(-capacity // self.segment_length) * self.stack
        return (
            capacity + segments + -(-capacity // STEPS_PER_EPISODE) + self.push_rows + self.segment_length + self.stack
        )

    def ring_bytes(self, task: int) -> int:
        """Bytes of a task's ring, rounded up to a page."""
        size = self.rows(task) * (row_stride(self.observation_shapes[task], self.dtype, self.action_size) + 1)
        return size + -size % 4096

    @property
    def nbytes(self) -> int:
        """Bytes that a storage of this spec takes up front."""
        return sum(self.ring_bytes(task) for task in range(self.num_tasks))

    def layout(self) -> dict[str, Any]:
        """What decides where in memory each row lies, as JSON gives it back."""
        return {
            "tasks": list(self.tasks),
            "observations": [list(shape) for shape in self.observation_shapes],
            "dtype": self.dtype,
            "actions": self.action_size,
            "rows": [self.rows(task) for task in range(self.num_tasks)],
        }

    def state_dtype(self) -> list[tuple[Any, ...]]:
        """Of the record that holds all that a storage needs beside its rows."""
        tasks = (self.num_tasks,)
        return [("bounds", "<i8", (*tasks, 3)), ("minimum", "<f4", tasks), ("maximum", "<f4", tasks)]


class Storage:
    """One TaskRing a task, the return extremes of finished episodes, and the generator that draws samples.

    `append` is called under a lock of the caller; `sample` takes that lock only to draw, not to copy.

    Args:
        memory: (spec.nbytes,) uint8, zeroed, or as a storage of the same spec left it.
        state: a record with the fields of spec.state_dtype(), zeroed or left likewise. Kept and written to.
    """

    def __init__(self, spec: StorageSpec, memory: np.ndarray, state: np.ndarray, seed: int) -> None:
        self.spec = spec
        self.rings: list[TaskRing] = []
        self.return_minimum, self.return_maximum = state["minimum"], state["maximum"]
        start = 0
        for task, shape in enumerate(spec.observation_shapes):
            stop = start + spec.ring_bytes(task)
            bounds = state["bounds"][task]
            self.rings.append(
                TaskRing(memory[start:stop], bounds, spec.rows(task), shape, spec.dtype, spec.action_size)
            )
            start = stop
        self.rng = np.random.default_rng(seed)
        if not state["bounds"].any():
            self.clear()

    def clear(self) -> None:
        """Hold nothing."""
        for ring in self.rings:
            ring.bounds[:] = 0
        self.return_minimum[:], self.return_maximum[:] = np.inf, -np.inf

    def drop_bad(self) -> Dropped:
        """Have no segment drawn that holds a bad number, and forget return extremes that are none, until another
        episode has finished. The caller makes the state last."""
        largest = LARGEST_NUMBER / (1.0 - self.spec.discount)  # of all that rewards up to it can make
        bad = ~((np.abs(self.return_minimum) <= largest) & (np.abs(self.return_maximum) <= largest))
        self.return_minimum[bad], self.return_maximum[bad] = np.inf, -np.inf
        found = [drop_bad_segments(ring) for ring in self.rings]
        return Dropped(sum(one.segments for one in found), sum(one.transitions for one in found))

    def check(self, task: int, rows: Rows) -> None:
        """Raises ValueError for rows that no ring of a task would take, before any of a push is stored."""
        if not 0 <= task < len(self.rings):
            raise ValueError(f"task {task} is not one of {len(self.rings)}")
        ring, count = self.rings[task], len(rows.flags)
        if count > self.spec.push_rows:
            raise ValueError(f"a push of {count} rows of a task is longer than push_rows {self.spec.push_rows}")
        if count == 0 or not rows.last[-1]:
            raise ValueError("rows must end with a last row")
        for name, array, shape in (
            ("observations", rows.observations, ring.observations.shape[1:]),
            ("actions", rows.actions, ring.actions.shape[1:]),
            ("rewards", rows.rewards, ()),
        ):
            if array.shape != (count, *shape):
                raise ValueError(f"{name} of task {task} have shape {array.shape}, not {(count, *shape)}")

    def append(self, push: Push, commit: Callable[[], None] = lambda: None) -> None:
        """Store a push that `check` has let pass: all of it or, if the process dies, nothing.

        `commit` makes `state` last; it is called when old rows have been given up, before they are overwritten. The
        caller makes it last again afterwards.
        """
        evicted = [self.rings[task].evict(len(rows.flags)) for task, rows in push.rows.items()]
        if any(evicted):
            commit()
        for task, rows in push.rows.items():
            self.rings[task].write(rows)
        for task, rows in push.rows.items():
            self.rings[task].advance(len(rows.flags), rows.transitions)
        for task, (least, greatest) in push.return_extremes.items():
            self.return_minimum[task] = min(self.return_minimum[task], np.float32(least))
            self.return_maximum[task] = max(self.return_maximum[task], np.float32(greatest))

    def allocate(self, count: int, batch_size: int) -> Batches:
        """Space for `count` batches."""
        spec = self.spec
        return Batches(
            np.empty((count, batch_size, *spec.widest), spec.dtype),
            np.empty((count, batch_size, spec.action_size), np.float32),
            np.empty((count, batch_size), np.float32),
            np.empty((count, batch_size), np.float32),
            np.empty((count, batch_size, *spec.widest), spec.dtype),
            np.empty((count, batch_size), np.int64),
            np.empty(spec.num_tasks, np.float32),
            np.empty(spec.num_tasks, np.float32),
        )

    def sample(
        self,
        count: int,
        batch_size: int,
        lock: threading.Lock,
        out: Batches | None = None,
        probabilities: np.ndarray | None = None,
    ) -> Batches:
        """`count` batches: of every task its share of rows, to within one row in each batch, and within a task
        transitions drawn uniformly with replacement.

        A task that is drawn must hold a transition. Rows are copied without the lock; those that a push has overwritten
        meanwhile are drawn again.

        Args:
            out: where to, with space for exactly these; allocated if None.
            probabilities: (tasks,) of each task; the spec's if None.
        """
        probabilities = self.spec.probabilities if probabilities is None else probabilities
        out = self.allocate(count, batch_size) if out is None else out
        with lock:
            np.copyto(out.return_minimum, self.return_minimum)
            np.copyto(out.return_maximum, self.return_maximum)
            ends = cut(self.rng, probabilities, batch_size, count)
            places = task_places(ends)
            drawn = [
                (ring.draw(self.rng, len(place)), ring.tail) for ring, place in zip(self.rings, places, strict=True)
            ]
        for task, place in enumerate(places):
            number, tail = drawn[task]
            while len(place):
                self._copy(task, number, tail, place, out)
                with lock:
                    ring = self.rings[task]
                    lost = number < ring.tail
                    if not lost.any():
                        break
                    place = place[lost]
                    number, tail = ring.draw(self.rng, len(place)), ring.tail
        return out

    def _copy(self, task: int, number: np.ndarray, tail: int, place: np.ndarray, out: Batches) -> None:
        ring, spec = self.rings[task], self.spec
        flat = [array.reshape(-1, *array.shape[2:]) for array in out[:6]]
        at = number % ring.rows
        pieces = [Piece(ring.actions, at, flat[1])]
        if spec.n_step == 1:
            masks, following = (ring.flags[at] & TERMINAL) == 0, number + 1
            pieces.append(Piece(ring.rewards, at, flat[2]))
        else:
            flat[2][place], masks, following = ring.look_ahead(number, spec.n_step, spec.discount)
        flat[3][place], flat[5][place] = masks, task
        for array, rows in ((flat[0], number), (flat[4], following)):
            if spec.stack == 1:
                width = ring.observations.shape[1]
                if width < array.shape[1]:  # only flat observations differ between tasks
                    array[place, width:] = 0
                pieces.append(Piece(ring.observations, rows % ring.rows, array[:, :width]))
                continue
            for frame, stacked in enumerate(ring.look_back(rows, tail, spec.stack)):
                pieces.append(Piece(ring.observations, stacked % ring.rows, array[:, frame]))
        gather(pieces, place)

    @property
    def transitions(self) -> list[int]:
        """Transitions stored, by task."""
        return [ring.transitions for ring in self.rings]


def new_state(spec: StorageSpec) -> np.ndarray:
    """A zeroed record for a Storage whose process need not outlive its death."""
    found: np.ndarray = np.zeros(1, spec.state_dtype())[0]
    return found


def cut(rng: np.random.Generator, probabilities: np.ndarray, batch_size: int, count: int) -> np.ndarray:
    """(count, tasks) int64: where in each batch the rows of each task end. Counts are `batch_size * probabilities`
    rounded up or down, at random such that this is also their mean."""
    if len(probabilities) == 1:
        return np.full((count, 1), batch_size)
    ends = np.floor(np.cumsum(probabilities) * batch_size + rng.random((count, 1))).astype(np.int64)
    ends[:, -1] = batch_size
    return np.minimum(ends, batch_size)


def task_places(ends: np.ndarray) -> list[np.ndarray]:
    """For each task, where its rows go in all batches laid end to end."""
    count, tasks = ends.shape
    if tasks == 1:
        return [np.arange(int(ends.sum()))]
    counts = ends.copy()
    counts[:, 1:] -= ends[:, :-1]
    of_row = np.repeat(np.tile(np.arange(tasks), count), counts.reshape(-1))
    return np.split(np.argsort(of_row, kind="stable"), np.cumsum(counts.sum(axis=0))[:-1])


def spec_from_json(saved: dict[str, Any]) -> StorageSpec:
    """The spec that `dataclasses.asdict` and JSON have made lists of."""
    known = {field.name for field in fields(StorageSpec)}

    def tuples(value: Any) -> Any:
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    return StorageSpec(**{name: tuples(value) for name, value in saved.items() if name in known})
