"""A shard and its clients: repeats, budgets over several shards, snapshots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from replay.client import LocalShard, Sampler, Writer
from replay.rate_limiter import RateLimit
from replay.rows import Push
from replay.shard import Shard, ShardSpec
from replay.snapshot import SnapshotError
from replay.storage import StorageSpec
from tests.test_storage import segments


def shard(index: int = 0, budget: int | None = None, max_ahead: int = 1000) -> Shard:
    storage = StorageSpec((2, 2), 1, 200, 5)
    return Shard(ShardSpec(index, storage, RateLimit(4, 4, 5, max_ahead, budget), seed=index))


def push(start: int, *lengths: int) -> Push:
    return Push({0: segments(start, list(lengths)), 1: segments(start, list(lengths))}, {0: (-1.0, float(start))})


def test_a_repeated_push_is_stored_once_and_answered_alike() -> None:
    one = shard(budget=8)
    first = one.insert("actor-0.0", 1, push(1, 5, 5))
    again = one.insert("actor-0.0", 1, push(1, 5, 5))
    assert first == again and first.accepted and first.left_over == {0: 8, 1: 8}
    stats = one.stats()
    assert stats["inserts_by_task"] == [8, 8] and stats["repeated_pushes"] == 1
    assert one.insert("actor-0.1", 1, push(1, 5)).left_over == {0: 0, 1: 0}, "another incarnation is another writer"


def test_a_refused_push_is_not_stored_and_says_when_to_come_back() -> None:
    one = shard(max_ahead=3)
    assert one.insert("a", 1, push(1, 10)).accepted
    reply = one.insert("a", 2, push(20, 5))
    assert not reply.accepted and reply.wait_s > 0
    assert one.stats()["inserts_by_task"] == [10, 10]
    assert one.sample(2).batches is not None
    assert one.stats()["insert_refusals"] == 1


def test_writer_fills_every_shard_to_its_budget_exactly() -> None:
    shards = [shard(0, budget=23), shard(1, budget=20)]
    writer = Writer("a", [LocalShard(one) for one in shards])
    start, pushes = 1, 0
    while not writer.finished:
        writer.push(push(start, 5, 2))
        start, pushes = start + 20, pushes + 1
        assert pushes < 20
    stored = [transition for one in shards for transition in one.stats()["inserts_by_task"]]
    assert stored == [23, 23, 20, 20]
    assert writer.stats()["transitions"] == 2 * 43
    held = [one.storage.rings[0].rows.rewards[: one.storage.rings[0].used] for one in shards]
    rewards = np.concatenate(held)
    rewards = rewards[rewards > 0]
    assert len(np.unique(rewards)) == len(rewards) == 43, "a transition on two shards, or twice on one"


def test_writers_of_two_tasks_do_not_wait_for_each_other() -> None:
    """Each begins at the shard where its own task is far ahead, and where the other's is what sampling waits for."""
    shards = [shard(index, budget=100, max_ahead=2) for index in range(2)]
    handles = [LocalShard(one) for one in shards]
    for task, one in enumerate(shards):
        assert one.insert(f"earlier-{task}", 1, Push({task: segments(1, [20])}, {})).accepted
    writers = [Writer(f"actor-{task}.0", handles, first=task) for task in range(2)]
    sampler = Sampler(handles, most=4, depth=1)
    for round in range(200):
        for task, writer in enumerate(writers):
            if writer.pushing is None:
                writer.push(Push({task: segments(100 * round + 1, [5])}, {}))
            else:
                writer.poll(timeout=0.01)
        while sampler.take_due() is not None:
            pass
        if all(writer.finished for writer in writers):
            break
    assert [one.stats()["inserts_by_task"] for one in shards] == [[100, 100], [100, 100]]
    assert all(writer.stats()["refusals"] for writer in writers)


def test_the_rest_of_a_split_push_does_not_wait_for_its_own_writer() -> None:
    """One writer of both tasks; on the second shard the first task is far ahead, and only this writer has the other."""
    shards = [shard(index, budget=100, max_ahead=2) for index in range(2)]
    handles = [LocalShard(one) for one in shards]
    assert shards[0].insert("earlier", 1, Push({0: segments(1, [98]), 1: segments(1, [80])}, {})).accepted
    assert shards[1].insert("earlier", 1, Push({0: segments(1, [60]), 1: segments(1, [40])}, {})).accepted
    writer, sampler = Writer("actor-0.1", handles), Sampler(handles, most=4, depth=1)
    for round in range(200):
        if writer.pushing is None:
            writer.push(push(100 * round + 1, 5))
        else:
            writer.poll(timeout=0.01)
        while sampler.take_due() is not None:
            pass
        if writer.finished:
            break
    assert [one.stats()["inserts_by_task"] for one in shards] == [[100, 100], [100, 100]]


def test_what_a_dead_learner_asked_for_is_refused_after_the_rewind() -> None:
    one = shard()
    one.insert("a", 1, push(1, 5, 5))
    assert one.sample(2, life=0).batches is not None
    one.rewind(4, life=1)
    assert one.sample(2, life=0).batches is None
    assert one.stats()["samples"] == 4
    assert one.sample(2, life=1).batches is not None


def test_waiting_is_told_while_it_lasts() -> None:
    one = shard(max_ahead=3)
    writer = Writer("a", [LocalShard(one)])
    writer.push(push(1, 10))
    writer.push(push(20, 5))  # refused; the next one waits for it
    told: list[float] = []

    def stopped() -> bool:
        """Asked before every try: listen, and stop after a few."""
        told.append(writer.stats()["wait_s"])
        return len(told) > 5

    writer.push(push(40, 5), stopped)
    assert told[-1] > told[0] and told == sorted(told)


def test_sampler_stops_when_nothing_is_due_and_takes_all_that_is() -> None:
    one = shard()
    sampler = Sampler([LocalShard(one)], most=3, depth=1)
    assert sampler.take_due() is None
    one.insert("a", 1, push(1, 5, 5))  # 10 steps, 5 of them warm-up: 20 samples, 5 batches
    counts = []
    while (reply := sampler.take_due()) is not None and reply.batches is not None:
        counts.append(reply.batches.num_batches)
        assert reply.batches.return_maximum.tolist() == [1.0, -np.inf]
    assert counts == [3, 2]
    assert one.stats()["samples_per_insert"] == one.stats()["samples_per_insert_target"] == 2.0


def test_samples_do_not_alias_storage() -> None:
    one = shard()
    one.insert("a", 1, push(1, 5, 5))
    batches = one.sample(1).batches
    assert batches is not None
    for array in batches:
        array[...] = 0
    assert one.storage.rings[0].rows.rewards[:5].tolist() == [1, 2, 3, 4, 5]


def test_snapshot_restores_content_limiter_and_known_pushes(tmp_path: Path) -> None:
    one = shard()
    one.insert("a", 1, push(1, 5, 5))
    one.sample(2)
    one.save(str(tmp_path))
    other = shard()
    other.restore(str(tmp_path))
    for key in ("inserts_by_task", "samples", "transitions_by_task", "samples_served"):
        assert other.stats()[key] == one.stats()[key]
    other.insert("a", 1, push(1, 5, 5))
    assert other.stats()["repeated_pushes"] == 1
    mine, theirs = one.sample(1).batches, other.sample(1).batches
    assert mine is not None and theirs is not None
    for ours, restored in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(ours, restored)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "state"])
def test_a_damaged_snapshot_is_named(tmp_path: Path, damage: str) -> None:
    one = shard()
    one.insert("a", 1, push(1, 5, 5))
    one.save(str(tmp_path))
    file = tmp_path / "shard-0" / ("state.json" if damage == "state" else "task-1-rewards.npy")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
        file.write_bytes(content)
    elif damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(SnapshotError, match=file.name):
        shard().restore(str(tmp_path))
