"""Rings of demonstrations, beside the rings of a run's own experience: nothing overwrites them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from replay.demonstrations import Episode, Source, to_rows
from replay.store import moments
from replay.store.returns import discounted_return_extremes, running_returns
from replay.store.ring import TaskRing, row_stride
from replay.store.rows import Rows
from replay.store.storage import StorageSpec


class DemonstrationRings:
    """The demonstrations of a shard: a ring for each task that has some, and the extremes and moments of their returns,
    which no snapshot holds."""

    def __init__(self, spec: StorageSpec, sources: Sequence[Source], index: int = 0, shards: int = 1) -> None:
        """Read the sources. Of several shards, each has every `shards`-th episode of a source, or all episodes if there
        are fewer than shards. Raises replay.demonstrations.BadDemonstrations."""
        self.rings: dict[int, TaskRing] = {}
        self.return_minimum = np.full(spec.num_tasks, np.inf, np.float32)
        self.return_maximum = np.full(spec.num_tasks, -np.inf, np.float32)
        self.return_moments = np.zeros((spec.num_tasks, moments.SIZE))
        for task in sorted({source.task for source in sources}):
            episodes: list[Episode] = []
            for source in sources:
                if source.task == task:
                    read_ = source.episodes()
                    self._extremes(task, read_, spec.discount)
                    for episode in read_[index::shards]:  # moments of all shards are merged
                        found = moments.of(running_returns(episode.rewards, spec.discount))
                        self.return_moments[task] = moments.merge(self.return_moments[task], found)
                    episodes += read_[index::shards] if len(read_) >= shards else read_
            self.rings[task] = filled(spec, task, episodes)

    def _extremes(self, task: int, episodes: Sequence[Episode], discount: float) -> None:
        """Add the extremes of returns. A part of an episode is not taken to give its mean reward for ever."""
        for episode in episodes:
            goes_on = episode.whole and not episode.terminated
            low, high = discounted_return_extremes(episode.rewards, goes_on, discount)
            self.return_minimum[task] = min(self.return_minimum[task], np.float32(low))
            self.return_maximum[task] = max(self.return_maximum[task], np.float32(high))


def filled(spec: StorageSpec, task: int, episodes: Sequence[Episode]) -> TaskRing:
    """Return a ring that holds these episodes."""
    parts = [to_rows(episode, spec.action_size) for episode in episodes]
    rows = Rows(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    shape, count = spec.observation_shapes[task], len(rows.flags)
    memory = np.zeros(count * (row_stride(shape, spec.dtype, spec.action_size) + 1), np.uint8)
    ring = TaskRing(memory, np.zeros(3, np.int64), count, shape, spec.dtype, spec.action_size)
    ring.write(rows)
    ring.advance(count, rows.transitions)
    return ring
