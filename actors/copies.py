"""The copies of tasks that an evaluator plays at the same time: no more than fit in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import psutil

from actors.benchmarks.benchmark import Task
from actors.closing import close
from actors.door import sound, sound_rows
from actors.environments import Environment, Step, make_environment
from replay.store.locations import node_memory
from replay.store.soundness import all_numbers, are_numbers

MOST_COPIES = 64  # of all tasks together, at the same time
# Copies may use this share of the memory that is available when the first copy is made. Evaluators of other benchmarks
# may make copies at the same time, and copies may grow while they are played.
MEMORY_SHARE = 0.25
LEAST_BYTES = 1_000_000  # least assumed cost of a copy: its measured cost is too low if it reuses freed memory


class Played:
    """Results of the episodes of one task, one entry an episode."""

    def __init__(self, episodes: int) -> None:
        self.returns = np.zeros(episodes)
        self.lengths = np.zeros(episodes, np.int64)
        self.successes = np.zeros(episodes, bool)


class Pool:
    """Copies of task `index`, each for one episode. Later episodes of copies that end early do not count."""

    def __init__(self, index: int, environment: Environment, episodes: Sequence[int], first_row: int) -> None:
        self.index = index
        self.environment = environment
        self.episodes = np.array(episodes)
        self.rows = slice(first_row, first_row + len(episodes))
        self.playing = np.ones(len(episodes), bool)
        self.inputs = environment.reset()

    def begin(self, found: Played) -> None:
        """Begin to play, and end the episodes whose first observation holds a bad number."""
        self._drop(~sound_rows(self.inputs), found)
        self.inputs = mended(self.inputs)

    def take(self, step: Step, found: Played) -> None:
        """Record the results of a step. An episode is played no further than its task's limit, even if the environment
        goes on. A bad number, as `door` defines it, also ends the episode, and its return is then NaN."""
        self._drop(self.playing & ~sound(step), found)
        self.inputs = mended(step.next_inputs)
        counted = self.episodes[self.playing]
        found.returns[counted] += step.rewards[self.playing]
        found.lengths[counted] += 1
        found.successes[counted] |= step.successes[self.playing]
        over = step.terminated | step.truncated | (found.lengths[self.episodes] >= self.environment.task.episode_limit)
        self.playing &= ~over

    def give_up(self, found: Played) -> None:
        """End the episodes of this pool early and discard their results."""
        found.returns[self.episodes] = 0.0
        found.lengths[self.episodes] = 0
        found.successes[self.episodes] = False
        self.playing[:] = False
        close(self.environment)

    def _drop(self, bad: np.ndarray, found: Played) -> None:
        found.returns[self.episodes[bad]] = np.nan
        self.playing &= ~bad


def mended(inputs: np.ndarray) -> np.ndarray:
    """Return inputs with 0 for bad numbers. Copies that play no more are still stepped, and environments refuse the
    NaN actions that follow from NaN inputs."""
    return inputs if all_numbers(inputs) else np.where(are_numbers(inputs), inputs, np.zeros_like(inputs))


class Copies:
    """The copies of an evaluator. The memory of a copy is measured when it is made: at first one copy is made, later
    at most twice as many at once as before. The growth of a copy is measured while it plays."""

    def __init__(self, backend: str, threads: int) -> None:
        self.backend = backend
        self.threads = threads
        self.process = psutil.Process()
        self.pools: list[Pool] = []
        self.known: dict[int, tuple[int, float]] = {}  # by task: most copies made at once, and bytes of one copy
        self.most_bytes = 0.0  # limit for this process
        self.grown: dict[int, float] = {}  # by task: bytes by which a copy grew while it was played
        self.made_bytes = 0  # of this process when the present copies had been made
        self.begun_bytes = 0  # of this process when the present copies began to play
        self.kept_bytes = 0  # of this process after copies were given up: their memory may not be freed
        self.making = True  # whether copies are being made, not played

    @property
    def largest(self) -> int:
        """The number of copies in the largest pool."""
        return max((len(pool.episodes) for pool in list(self.pools)), default=1)

    @property
    def count(self) -> int:
        return sum(len(pool.episodes) for pool in self.pools)

    def fitting(self, index: int, wanted: int, together: bool = False) -> int:
        """Return how many of `wanted` copies of a task may be made at once now. While there is no copy at all, it is
        at least one. With `together` the first are not fewer than later ones: simulators compile for each number."""
        if not self.pools:
            self.most_bytes = self._bytes() + MEMORY_SHARE * node_memory()[0]
            self.kept_bytes = 0
        made, each = self.known.get(index, (0, LEAST_BYTES))
        growth = sum(len(pool.episodes) * self.grown.get(pool.index, 0.0) for pool in self.pools)  # still to come
        fit = int((self.most_bytes - self._bytes() - growth) // (each + self.grown.get(index, 0.0)))
        most = wanted if together else max(1, 2 * made)
        return max(0 if self.pools else 1, min(wanted, MOST_COPIES - self.count, most, fit))

    def make(self, index: int, task: Task, episodes: Sequence[int], seeds: Sequence[int]) -> None:
        """Make and reset one copy an episode, each with its own seed."""
        before = self._bytes()
        environment = make_environment(self.backend, task, seeds, self.threads)
        try:
            self.pools.append(Pool(index, environment, episodes, self.count))
        except BaseException:
            close(environment)
            raise
        if len(seeds) > self.known.get(index, (0, 0.0))[0]:
            self.known[index] = len(seeds), max(LEAST_BYTES, (self._bytes() - before) / len(seeds))
        self.made_bytes = self._bytes()

    def begin(self) -> None:
        """Begin to play: all copies that fit are made. Memory that was allocated since they were made, such as the
        policy's, raises the limit, because it is not theirs."""
        self.making = False
        self.begun_bytes = self._bytes()
        self.most_bytes += max(0, self.begun_bytes - self.made_bytes)

    def give_way(self, found: dict[int, Played]) -> list[tuple[int, int]]:
        """Give up the last pool of copies if the process has grown beyond its limit and other pools still play.

        Return (task, episode) of the copies given up: their episodes are played from the start when there is room.
        """
        playing = [pool for pool in self.pools if pool.playing.any()]
        if len(playing) < 2 or self._bytes() <= max(self.most_bytes, self.kept_bytes + LEAST_BYTES):
            return []
        self._learn()
        last = playing[-1]
        last.give_up(found[last.index])
        self.pools.remove(last)
        self.begun_bytes = self.kept_bytes = self._bytes()
        return [(last.index, int(episode)) for episode in last.episodes]

    def _learn(self) -> None:
        """Note by how many bytes a copy has grown since it began to play, as if all copies had grown alike."""
        grown = max(0, self._bytes() - self.begun_bytes) / self.count
        for pool in self.pools:
            self.grown[pool.index] = max(grown, self.grown.get(pool.index, 0.0))

    def close(self) -> None:
        if self.pools and not self.making:
            self._learn()
        while self.pools:
            close(self.pools.pop().environment)

    def _bytes(self) -> int:
        """Return the private memory of this process in bytes."""
        memory = self.process.memory_info()
        return int(memory.rss - memory.shared)
