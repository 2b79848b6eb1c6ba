"""Replay as a whole, compared with plain lists: pushes, samples, snapshots, losses and restores in any order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from replay.shard import Shard
from replay.store.rows import Push
from tests.support.streams import numbers, segments, shard, transitions


class Replay(RuleBasedStateMachine):
    @initialize(capacity=st.integers(30, 90), shards=st.integers(1, 3))
    def begin(self, capacity: int, shards: int) -> None:
        self.url = f"memory://{id(self)}-{np.random.default_rng().integers(1 << 60)}"
        self.capacity, self.next, self.sequence, self.saved = capacity, 1, 0, 0
        self.shards = [shard(self.url, index, shards, capacity=capacity) for index in range(shards)]
        self.pushed: list[list[list[float]]] = [[[], []] for _ in range(shards)]  # by shard and task, in order
        self.at_save: list[list[list[float]]] | None = None

    @rule(data=st.data(), lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3), task=st.integers(0, 1))
    def insert(self, data: st.DataObject, lengths: list[int], task: int) -> None:
        index = data.draw(st.integers(0, len(self.shards) - 1))
        rows = segments(self.next, lengths, terminal=len(lengths) == 2)
        self.next += len(rows.flags)
        self.sequence += 1
        for _ in range(data.draw(st.integers(1, 2))):  # a push may be repeated
            assert self.shards[index].insert("a", self.sequence, Push({task: rows}, {}), is_rest=True).accepted
        self.pushed[index][task] += [t.reward for t in transitions(rows)]

    @precondition(lambda self: all(all(tasks) for tasks in self.pushed))
    @rule(n=st.integers(1, 3))
    def sample(self, n: int) -> None:
        for index, one in enumerate(self.shards):
            batches = one.storage.sample(n, 16, one.lock)
            for task in (0, 1):
                drawn = batches.rewards[batches.task_ids == task]
                assert set(drawn.tolist()) <= set(self.pushed[index][task])
                assert len(drawn) == 8 * n

    @rule()
    def save(self) -> None:
        self.saved += 1
        for one in self.shards:
            one.save(f"{self.saved:04d}")
        self.at_save = [[numbers(one, task) for task in (0, 1)] for one in self.shards]

    @precondition(lambda self: self.at_save is not None)
    @rule()
    def lose_and_restore(self) -> None:
        assert self.at_save is not None
        self.shards = [Shard(replace(one.spec, snapshot=f"{self.saved:04d}")) for one in self.shards]
        self.pushed = [[list(task) for task in tasks] for tasks in self.at_save]
        assert [[numbers(one, task) for task in (0, 1)] for one in self.shards] == self.at_save

    @precondition(lambda self: self.at_save is not None)
    @rule(shards=st.integers(1, 3), capacity=st.integers(30, 90))
    def restore_differently(self, shards: int, capacity: int) -> None:
        assert self.at_save is not None
        dealt = [shard(self.url, index, shards, f"{self.saved:04d}", capacity=capacity) for index in range(shards)]
        for task in (0, 1):
            known = [number for tasks in self.at_save for number in tasks[task]]
            found = [number for one in dealt for number in numbers(one, task)]
            assert len(set(found)) == len(found) and set(found) <= set(known)
            if shards == len(self.shards) and capacity == self.capacity:
                assert sorted(found) == sorted(known)
        self.shards, self.capacity = dealt, capacity
        self.pushed = [[numbers(one, task) for task in (0, 1)] for one in dealt]
        self.at_save = None

    @invariant()
    def holds_the_newest(self) -> None:
        for index, one in enumerate(self.shards):
            for task in (0, 1):
                found, pushed = numbers(one, task), self.pushed[index][task]
                assert found == pushed[len(pushed) - len(found) :]
                assert one.storage.rings[task].transitions == len(found)


TestReplay = Replay.TestCase
TestReplay.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
