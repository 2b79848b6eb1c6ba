"""The copies of tasks that an evaluator plays at a time: no more than there is room for in memory."""

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

MOST_COPIES = 64  # of all tasks together, at a time
# Part of the memory that is available when the first of them is made: evaluators of other benchmarks may do the same at
# the same time, and copies may grow while they are played.
MEMORY_SHARE = 0.25
LEAST_BYTES = 1_000_000  # that a copy is taken to cost, also where it takes memory that others have left


class Played:
    """Episodes of one task, an entry each."""

    def __init__(self, episodes: int) -> None:
        self.returns = np.zeros(episodes)
        self.lengths = np.zeros(episodes, np.int64)
        self.successes = np.zeros(episodes, bool)


class Pool:
    """Copies of the task of this index, each for one episode; later episodes of faster copies do not count."""

    def __init__(self, index: int, environment: Environment, episodes: Sequence[int], first_row: int) -> None:
        self.index = index
        self.environment = environment
        self.episodes = np.array(episodes)
        self.rows = slice(first_row, first_row + len(episodes))
        self.playing = np.ones(len(episodes), bool)
        self.inputs = environment.reset()

    def begin(self, found: Played) -> None:
        """Play the episodes whose first observation is of numbers."""
        self._drop(~sound_rows(self.inputs), found)
        self.inputs = mended(self.inputs)

    def take(self, step: Step, found: Played) -> None:
        """Note what a step gave. An environment that does not keep to its task's limit is not played beyond it, and one
        that gave a number that is none, as the door has it, not beyond that: then the return is NaN."""
        self._drop(self.playing & ~sound(step), found)
        self.inputs = mended(step.next_inputs)
        counted = self.episodes[self.playing]
        found.returns[counted] += step.rewards[self.playing]
        found.lengths[counted] += 1
        found.successes[counted] |= step.successes[self.playing]
        over = step.terminated | step.truncated | (found.lengths[self.episodes] >= self.environment.task.episode_limit)
        self.playing &= ~over

    def give_up(self, found: Played) -> None:
        """Ends its episodes early, and keeps nothing of what they gave."""
        found.returns[self.episodes] = 0.0
        found.lengths[self.episodes] = 0
        found.successes[self.episodes] = False
        self.playing[:] = False
        close(self.environment)

    def _drop(self, bad: np.ndarray, found: Played) -> None:
        found.returns[self.episodes[bad]] = np.nan
        self.playing &= ~bad


def mended(inputs: np.ndarray) -> np.ndarray:
    """Inputs with what is no number made 0, for copies that play no more: environments refuse NaN as an action."""
    return inputs if all_numbers(inputs) else np.where(are_numbers(inputs), inputs, np.zeros_like(inputs))


class Copies:
    """The copies of an evaluator. What one costs is measured when it is made: at first there is one, then at most
    twice as many at once as before. What it grows by is measured while it plays."""

    def __init__(self, backend: str, threads: int) -> None:
        self.backend = backend
        self.threads = threads
        self.process = psutil.Process()
        self.pools: list[Pool] = []
        self.known: dict[int, tuple[int, float]] = {}  # by task: how many were made at once, and the bytes of one
        self.most_bytes = 0.0  # of this process
        self.grown: dict[int, float] = {}  # by task: bytes that a copy took more while it was played
        self.made_bytes = 0  # of this process when the copies that there are were made
        self.begun_bytes = 0  # of this process when these began to play
        self.kept_bytes = 0  # of this process when some had been given up: their memory need not come back
        self.making = True  # whether they are being made, not played

    @property
    def largest(self) -> int:
        """Copies in the largest pool."""
        return max((len(pool.episodes) for pool in list(self.pools)), default=1)

    @property
    def count(self) -> int:
        return sum(len(pool.episodes) for pool in self.pools)

    def fitting(self, index: int, wanted: int) -> int:
        """How many of `wanted` copies of a task may be made at once now; one where there is none of any."""
        if not self.pools:
            self.most_bytes = self._bytes() + MEMORY_SHARE * node_memory()[0]
            self.kept_bytes = 0
        made, each = self.known.get(index, (0, LEAST_BYTES))
        growth = sum(len(pool.episodes) * self.grown.get(pool.index, 0.0) for pool in self.pools)  # is still to come
        fit = int((self.most_bytes - self._bytes() - growth) // (each + self.grown.get(index, 0.0)))
        return max(0 if self.pools else 1, min(wanted, MOST_COPIES - self.count, max(1, 2 * made), fit))

    def make(self, index: int, task: Task, episodes: Sequence[int], seeds: Sequence[int]) -> None:
        """Make and reset a copy for each episode, with a seed each."""
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
        """All that fit are made and are about to play. What came since, such as the policy, is none of theirs."""
        self.making = False
        self.begun_bytes = self._bytes()
        self.most_bytes += max(0, self.begun_bytes - self.made_bytes)

    def give_way(self, found: dict[int, Played]) -> list[tuple[int, int]]:
        """Gives up the copies made last if all together have grown out of their room and others still play. Returns
        their (task, episode): these are played from the start when there is room again."""
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
        """Notes how many bytes a copy has grown by since it began to play, as if all had grown alike."""
        grown = max(0, self._bytes() - self.begun_bytes) / self.count
        for pool in self.pools:
            self.grown[pool.index] = max(grown, self.grown.get(pool.index, 0.0))

    def close(self) -> None:
        if self.pools and not self.making:
            self._learn()
        while self.pools:
            close(self.pools.pop().environment)

    def _bytes(self) -> int:
        """What this process has of memory for itself."""
        memory = self.process.memory_info()
        return int(memory.rss - memory.shared)
