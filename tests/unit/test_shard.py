"""A shard and its clients: repeated pushes, budgets over several shards, lost shards, batches weighted by content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from replay.client.handle import LocalShard, ShardUnavailable
from replay.client.sampler import Sampler
from replay.client.writer import Writer
from replay.rate_limiter import RateLimit
from replay.shard import Shard, ShardSpec
from replay.store.rows import Push
from tests.support.streams import held, push, segments, spec, transitions

LIFE = (0, 1)


def shard(index: int = 0, budget: int | None = None, max_ahead: int = 1000, capacity: int = 200) -> Shard:
    one = Shard(
        ShardSpec(
            index=index,
            storage=spec(2, capacity),
            limit=RateLimit(samples_per_step=4, batch_size=4, warmup=5, max_ahead=max_ahead, budget=budget),
            seed=index,
        )
    )
    one.settle(0, LIFE)
    return one


def rewards(one: Shard, task: int = 0) -> list[float]:
    """Return the numbers of the transitions that a shard holds."""
    return [transition.reward for transition in transitions(held(one.storage.rings[task]))]


class Cut(LocalShard):
    """A shard behind a connection that can be cut before the call arrives, or before its answer arrives."""

    def __init__(self, shard: Shard) -> None:
        super().__init__(shard)
        self.is_cut: Callable[[str], str] = lambda method: ""

    def call(self, method: str, *arguments: Any) -> Any:
        how = self.is_cut(method)
        if how == "before":
            return Lost()
        answer = super().call(method, *arguments)
        return Lost() if how == "after" else answer


class Lost:
    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:
        raise ShardUnavailable("the line is cut")


def test_a_repeated_push_is_stored_once_and_answered_alike() -> None:
    one = shard(budget=10)
    first = one.insert("actor-0.0", 1, push(1, 5, 5))
    again = one.insert("actor-0.0", 1, push(1, 5, 5))
    assert first == again and first.accepted and first.room == {0: 0, 1: 0}
    stats = one.stats()
    assert stats.inserts_by_task == [10, 10] and stats.repeated_pushes == 1
    assert one.insert("actor-0.1", 1, push(1, 5)).room == {0: 0, 1: 0}, "another incarnation is another writer"


def test_a_push_beyond_the_budget_is_refused_and_says_what_fits() -> None:
    one = shard(budget=8)
    reply = one.insert("a", 1, push(1, 5, 5))
    assert not reply.accepted and reply.room == {0: 8, 1: 8}
    assert one.stats().inserts_by_task == [0, 0]


def test_a_push_that_does_not_fit_changes_nothing() -> None:
    one = shard()
    with pytest.raises(ValueError, match="task 1"):
        one.insert("a", 1, Push({0: segments(1, [5]), 1: segments(1, [5], size=7)}, {}))
    assert one.stats().inserts_by_task == [0, 0] and one.storage.transitions == [0, 0]


def test_a_refused_push_is_not_stored_and_says_when_to_come_back() -> None:
    one = shard(max_ahead=3)
    assert one.insert("a", 1, push(1, 10)).accepted
    reply = one.insert("a", 2, push(20, 5))
    assert not reply.accepted and reply.wait_s > 0
    assert one.stats().inserts_by_task == [10, 10]
    assert one.sample(2, LIFE).batches is not None
    assert one.stats().limiter.insert_refusals == 1


def test_a_refused_push_stays_refused_however_late_its_call_comes() -> None:
    """A shard refuses a late call whose push the writer has meanwhile sent to another shard under another number."""
    one = shard(max_ahead=3)
    assert one.insert("a", 1, push(1, 10)).accepted
    assert not one.insert("a", 2, push(20, 5)).accepted
    one.limiter.samples = 40
    assert not one.insert("a", 2, push(20, 5)).accepted
    assert one.insert("a", 3, push(20, 5)).accepted


def test_a_budget_below_what_is_there_is_full() -> None:
    one = shard(budget=8)
    one.limiter.inserts[:] = 20  # as in a resumed run with fewer steps than replay's files hold
    writer = Writer("a", [LocalShard(one)])
    writer.push(push(1, 5))
    assert writer.finished and not writer.busy and one.storage.transitions == [0, 0]


def test_writer_fills_every_shard_to_its_budget_exactly() -> None:
    shards = [shard(0, budget=23), shard(1, budget=20)]
    writer = Writer("a", [LocalShard(one) for one in shards])
    start, pushes = 1, 0
    while not writer.finished:
        writer.push(push(start, 5, 2))
        start, pushes = start + 20, pushes + 1
        assert pushes < 20
    stored = [transition for one in shards for transition in one.stats().inserts_by_task]
    assert stored == [23, 23, 20, 20]
    assert writer.stats().transitions == 2 * 43
    numbers = [number for one in shards for number in rewards(one)]
    assert len(set(numbers)) == len(numbers) == 43, "a transition on two shards, or twice on one"


def test_writers_of_two_tasks_do_not_wait_for_each_other() -> None:
    """Each writer begins at the shard where its own task is far ahead, and where sampling waits for the other task."""
    shards = [shard(index, budget=100, max_ahead=2) for index in range(2)]
    handles = [LocalShard(one) for one in shards]
    for task, one in enumerate(shards):
        assert one.insert(f"earlier-{task}", 1, Push({task: segments(1, [20])}, {})).accepted
    writers = [Writer(f"actor-{task}.0", handles, first=task) for task in range(2)]
    sampler = Sampler(handles, most=4, depth=1)
    for round in range(200):
        for task, writer in enumerate(writers):
            if not writer.busy:
                writer.push(Push({task: segments(100 * round + 1, [5])}, {}))
            else:
                writer.poll(timeout=0.01)
        while sampler.take_due() is not None:
            pass
        if all(writer.finished for writer in writers):
            break
    assert [one.stats().inserts_by_task for one in shards] == [[100, 100], [100, 100]]
    assert all(writer.stats().refusals for writer in writers)


def test_the_rest_of_a_split_push_does_not_wait_for_its_own_writer() -> None:
    """One writer pushes both tasks. On the second shard the first task is far ahead, and only this writer can push the
    second task."""
    shards = [shard(index, budget=100, max_ahead=2) for index in range(2)]
    handles = [LocalShard(one) for one in shards]
    for one, first, second in ((shards[0], 98, 80), (shards[1], 60, 40)):
        for task, count in ((0, first), (1, second)):
            for sequence in range(count):  # in pieces of a size that a push may have
                rest = Push({task: segments(2 * sequence + 1, [1])}, {})
                assert one.insert(f"earlier-{task}", sequence, rest, is_rest=True).accepted
    writer, sampler = Writer("actor-0.1", handles), Sampler(handles, most=4, depth=1)
    for round in range(200):
        if not writer.busy:
            writer.push(push(100 * round + 1, 5))
        else:
            writer.poll(timeout=0.01)
        while sampler.take_due() is not None:
            pass
        if writer.finished:
            break
    assert [one.stats().inserts_by_task for one in shards] == [[100, 100], [100, 100]]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_push_that_is_not_answered_arrives_once(when: str) -> None:
    """A shard is out of reach for a while. Meanwhile the other shard takes new pushes; the shard stores the unanswered
    push once when it is back."""
    shards = [shard(0), shard(1)]
    lines = [Cut(one) for one in shards]
    writer = Writer("a", lines)
    lines[0].is_cut = lambda method: when
    for number in range(4):
        writer.push(push(1 + 100 * number, 5))
        writer.flush()
    assert writer.stats().lost == 1 and writer.stuck
    assert rewards(shards[1]) == [float(100 * k + i) for k in (1, 2, 3) for i in range(1, 6)]
    lines[0].is_cut = lambda method: ""
    while writer.stuck:
        writer.poll(timeout=0.01)
    assert rewards(shards[0]) == [1, 2, 3, 4, 5]
    assert shards[0].stats().repeated_pushes == (1 if when == "after" else 0)
    assert writer.stats().transitions == 2 * 20


def test_a_single_shard_that_is_away_is_waited_for() -> None:
    one = Cut(shard())
    writer = Writer("a", [one])
    one.is_cut = lambda method: "before"
    writer.push(push(1, 5))
    writer.poll()
    assert writer.stuck and not writer.finished
    writer.push(push(10, 5), stopped=lambda: True)  # returns though nothing can be sent
    one.is_cut = lambda method: ""
    writer.push(push(20, 5))
    writer.flush()
    while writer.stuck:
        writer.poll(timeout=0.01)
    assert sorted(rewards(one.shard)) == [1, 2, 3, 4, 5, 20, 21, 22, 23, 24]


def test_what_a_dead_learner_asked_for_is_refused_after_the_next_has_settled() -> None:
    one = shard()
    one.insert("a", 1, push(1, 5, 5))
    assert one.sample(2, LIFE).batches is not None
    assert one.settle(1, (1, 1)) == (10, 10)
    refused = one.sample(2, LIFE)
    assert refused.batches is None and refused.is_stranger
    assert one.stats().limiter.samples == 4
    assert one.sample(2, (1, 1)).batches is not None


@pytest.mark.parametrize("when", ["before", "after"])
def test_batches_in_answers_that_were_lost_are_granted_again(when: str) -> None:
    one = Cut(shard(budget=55))
    for number in range(10):
        assert one.shard.insert("a", number, push(100 * number + 1, 5)).accepted
    sampler = Sampler([one], most=3, depth=2)
    calls = iter(range(1000))
    one.is_cut = lambda method: when if method == "sample" and next(calls) % 4 == 1 else ""
    received = 0
    while received < 45:
        reply = sampler.next(timeout=1.0)
        if reply is not None and reply.batches is not None:
            received += reply.batches.num_batches
    assert sampler.received == [45] and sampler.stats().lost > 0
    assert sampler.next(timeout=0.3) is None, "more than the ratio allows"


def test_waiting_is_told_while_it_lasts() -> None:
    one = shard(max_ahead=3)
    writer = Writer("a", [LocalShard(one)])
    writer.push(push(1, 10))
    writer.push(push(20, 5))  # refused; the next push waits for it
    told: list[float] = []

    def stopped() -> bool:
        """Note the wait before every try, and stop after six tries."""
        told.append(writer.stats().wait_s)
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
    assert one.stats().limiter.samples_per_insert == one.stats().limiter.samples_per_insert_target == 2.0


def test_batches_are_copied_into_the_callers_space() -> None:
    one = shard()
    one.insert("a", 1, push(1, 5, 5))
    space = one.storage.allocate(4, 4)
    reply = Sampler([LocalShard(one)], most=3, depth=1).next(timeout=1.0, into=space)
    assert reply is not None and reply.batches is not None and reply.batches.num_batches == 3
    for array, place in zip(reply.batches, space, strict=True):
        assert np.shares_memory(array, place)
    assert (reply.batches.next_observations == reply.batches.observations + 1).all()


def test_samples_do_not_alias_storage() -> None:
    one = shard()
    one.insert("a", 1, push(1, 5, 5))
    batches = one.sample(1, LIFE).batches
    assert batches is not None
    for array in batches:
        array[...] = 0
    assert rewards(one)[:5] == [1, 2, 3, 4, 5]


def test_transitions_are_equally_likely_when_shards_hold_unequal_amounts() -> None:
    """One of three shards has lost its content and refills, and another holds less of one task. Every shard grants the
    batches that its limiter counts. Shards that hold more serve more of the granted batches."""
    shards = [shard(index, capacity=400) for index in range(3)]
    for index, (first, second) in enumerate(((80, 80), (80, 20), (5, 5))):
        for task, count in ((0, first), (1, second)):
            for number in range(count // 5):
                start = 10_000 * (index + 1) + 100 * number
                assert shards[index].insert(f"{task}", number, Push({task: segments(start, [5])}, {}), True).accepted
    for one in shards:
        one.limiter.inserts[:] = 80  # as `catch_up` sets them on a shard that has lost content
    sampler = Sampler([LocalShard(one) for one in shards], most=4, depth=2)
    seen: dict[int, list[float]] = {0: [], 1: []}
    batches, granted = 0, [0, 0, 0]
    for round in range(60):
        for one in shards:
            one.limiter.inserts += 5  # as if actors went on, but the content stays the same
        patience = 0.01 if round < 59 else 0.5
        while (reply := sampler.next(patience)) is not None and reply.batches is not None:
            granted[reply.shard] += reply.batches.num_batches
            batches += reply.batches.num_batches
            for task in (0, 1):
                mine = reply.batches.task_ids == task
                seen[task] += reply.batches.rewards[mine].tolist()
    assert max(granted) - min(granted) <= 8, "each shard's limiter grants its part"
    assert sum(granted) == batches == sum(sampler.received) > 900
    counts = [len(seen[task]) for task in (0, 1)]
    assert abs(counts[0] - counts[1]) < 0.05 * sum(counts), "tasks are drawn equally often"
    for task, stored in ((0, (80, 80, 5)), (1, (80, 20, 5))):
        where = np.array(seen[task]) // 10_000
        share = np.array([np.mean(where == index + 1) for index in range(3)])
        expected = np.array(stored) / sum(stored)
        assert np.abs(share - expected).max() < 0.05, (task, share, expected)
    assert sampler.stats().elsewhere > 0


def test_what_was_counted_before_a_loss_counts_on() -> None:
    one = shard(budget=100)
    one.insert("a", 1, push(1, 5))
    one.catch_up([40, 30])
    assert one.stats().inserts_by_task == [45, 35]
    one.catch_up([40, 30])
    assert one.stats().inserts_by_task == [45, 35], "told twice, counted once"


def test_one_that_has_lost_its_content_takes_nothing_before_it_knows_what_was_counted() -> None:
    again = Shard(shard(budget=50).spec, again=True)
    assert not again.insert("a", 1, push(1, 5)).accepted
    assert again.catch_up([45, 45]).caught_up
    assert not again.insert("a", 1, push(1, 5)).accepted
    assert again.insert("a", 2, push(1, 5)).accepted
    assert again.stats().inserts_by_task == [50, 50]
