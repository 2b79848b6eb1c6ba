"""Copies of a task of envpool whose episodes all begin alike: the same places of objects, the same goal.

envpool draws them anew at every reset, and only a seed sets them. Each copy is therefore a pool of its own, which is
made anew from the same seed for every episode: 20 to 50 ms on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.backends.envpool import EnvpoolEnvironment
from actors.benchmarks.benchmark import Task
from actors.environments import Step


class OneCopy(EnvpoolEnvironment):
    """A pool of one copy that `restart` makes anew, at `task.fixed_start`."""

    def __init__(self, task: Task, film: bool) -> None:
        if task.fixed_start is None:
            raise ValueError(f"{task.name} has no fixed_start")
        super().__init__(task, [task.fixed_start], film=film)

    def restart(self, copies: np.ndarray) -> np.ndarray:
        self.pool.close()
        self.pool = self.make_pool()
        return self.reset()


class FixedStartEnvironment:
    """Several such copies as one environment; it takes their number from `seeds`. At most `threads` step at a time."""

    def __init__(self, task: Task, seeds: Sequence[int], threads: int = 1, film: bool = False) -> None:
        self.task = task
        self.copies = len(seeds)
        self.threads = max(1, threads)
        self.pools = [OneCopy(task, film) for _ in seeds]
        self.scale = self.pools[0].scale
        self.sent = np.zeros(0)

    def reset(self) -> np.ndarray:
        return np.concatenate([pool.reset() for pool in self.pools])

    def send(self, actions: np.ndarray) -> None:
        self.sent = actions.copy()
        self._start(0)

    def recv(self) -> Step:
        steps = []
        for first in range(0, self.copies, self.threads):
            if first:
                self._start(first)
            steps += [pool.recv() for pool in self.pools[first : first + self.threads]]
        columns = ([getattr(step, name) for step in steps] for name in Step._fields[:-1])
        return Step(*(np.concatenate(column) for column in columns))

    def _start(self, first: int) -> None:
        for copy, pool in enumerate(self.pools[first : first + self.threads], start=first):
            pool.send(self.sent[copy : copy + 1])

    def restart(self, copies: np.ndarray) -> np.ndarray:
        return np.concatenate([self.pools[copy].restart(copies) for copy in copies.tolist()])

    def begun(self) -> list[Any]:
        return []

    def fast_forward(
        self, resets: Sequence[int], actions: Sequence[np.ndarray], begun: Sequence[Any] = ()
    ) -> np.ndarray:
        # A fresh pool is at the start after one reset, whatever came before.
        found = [
            pool.fast_forward([min(count, 1)], [taken])
            for pool, count, taken in zip(self.pools, resets, actions, strict=True)
        ]
        return np.concatenate(found)

    def frame(self) -> np.ndarray:
        """Return a picture of the first copy, (height, width, 3) uint8."""
        return self.pools[0].frame()

    def close(self) -> None:
        for pool in self.pools:
            pool.close()
