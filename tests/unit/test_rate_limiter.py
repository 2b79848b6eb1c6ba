"""The rate limiter: tables of allowed calls, and simulated runs that must neither leave the ratio nor lock up."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.rate_limiter import RateLimit, RateLimiter

ROUNDING = 1e-6  # tolerance in rows, for ratios that a float holds inexactly, such as a third


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# inserts of both tasks, samples taken, batches allowed, may task 0 insert, may task 1 insert
TABLE = [
    ((0, 0), 0, 0, True, True),  # warm-up
    ((10, 9), 0, 0, True, True),  # one task is still warming up
    ((10, 10), 0, 0, True, True),  # warm, nothing due yet
    ((11, 11), 0, 2, True, True),  # one step of each task is 16 samples, two batches
    ((11, 20), 0, 2, True, False),  # the slowest task decides; the other is 10 steps ahead, more than 4
    ((14, 14), 0, 8, True, True),  # exactly max_ahead: one more push may come
    ((15, 15), 0, 10, False, False),
    ((15, 15), 16, 8, True, True),  # sampling made room
    ((15, 15), 80, 0, True, True),  # all due samples taken
]


@pytest.mark.parametrize(("inserts", "samples", "batches", "first", "second"), TABLE)
def test_table(inserts: tuple[int, int], samples: int, batches: int, first: bool, second: bool) -> None:
    limiter = RateLimiter(RateLimit(samples_per_step=16, batch_size=8, warmup=10, max_ahead=4), num_tasks=2)
    for task, count in enumerate(inserts):
        limiter.inserted(task, count)
    limiter.sampled(samples)
    assert limiter.batches_allowed() == batches
    assert limiter.may_insert([0]) == first
    assert limiter.may_insert([1]) == second
    assert limiter.may_insert([0, 1]) == (first or second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_ahead": 3, "samples_per_step": 2, "batch_size": 8}, "at least 4"),
        ({"samples_per_step": 0.0}, "positive"),
        ({"batch_size": 0}, "positive"),
        ({"warmup": 0}, "positive"),
        ({"max_ahead": 0}, "positive"),
        ({"budget": 10}, "exceed"),
    ],
)
def test_limits_that_would_deadlock_are_refused(changes: dict[str, float], message: str) -> None:
    limit = {"samples_per_step": 16.0, "batch_size": 8, "warmup": 10, "max_ahead": 4} | changes
    with pytest.raises(ValueError, match=message):
        RateLimit(**limit)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    tasks=st.integers(1, 5),
    actors=st.integers(1, 6),
    push=st.integers(1, 40),
    samples_per_step=st.sampled_from([0.5, 1 / 3, 3.0, 0.3333333333 * 9, 16.0, 512.0]),
    batch_size=st.integers(1, 64),
    warmup=st.integers(1, 50),
    spare=st.integers(0, 60),
    seed=st.integers(0, 1000),
)
def test_runs_end_at_the_exact_ratio(
    tasks: int, actors: int, push: int, samples_per_step: float, batch_size: int, warmup: int, spare: int, seed: int
) -> None:
    """Actors with random speeds push until the budget, and a learner samples. One side may always proceed. At the end
    the samples are those that the ratio asks for, to within a batch; before, they are never more."""
    least = -(-batch_size // samples_per_step)
    budget = warmup + 300
    limit = RateLimit(
        samples_per_step=samples_per_step,
        batch_size=batch_size,
        warmup=warmup,
        max_ahead=int(least) + spare,
        budget=budget,
    )
    limiter = RateLimiter(limit, tasks)
    rng = random.Random(seed)
    speeds = [rng.random() + 0.05 for _ in range(actors + tasks)]
    served = [[task for task in range(tasks) if task % (actors + tasks) == a % tasks] for a in range(actors + tasks)]
    while True:
        moved = False
        for actor, mine in enumerate(served):
            if rng.random() > speeds[actor]:
                moved = moved or any(limiter.room(task) for task in mine)  # slow, not stuck
                continue
            if mine and any(limiter.room(task) for task in mine) and limiter.may_insert(mine):
                for task in mine:
                    room = limiter.room(task)
                    assert room is not None
                    limiter.inserted(task, min(push, room))
                moved = True
        batches = limiter.batches_allowed()
        if batches:
            limiter.sampled(rng.randint(1, batches) * batch_size)
            moved = True
        due = (int(limiter.inserts.min()) - warmup) * samples_per_step + ROUNDING
        assert limiter.samples <= max(0.0, due)
        assert limiter.ahead() <= limit.max_ahead + push + batch_size / samples_per_step
        if not moved:
            break
    assert (limiter.inserts == budget).all(), "locked up before the budget"
    assert -ROUNDING <= (budget - warmup) * samples_per_step - limiter.samples < batch_size
    assert limiter.samples == limit.total_batches * batch_size, "what the learner waits for"


def test_waits_and_refusals_are_told() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(samples_per_step=16, batch_size=8, warmup=10, max_ahead=4), 1, clock)
    limiter.sample_side.refused()
    clock.now = 2.0
    assert limiter.stats().sample_wait_s == 2.0
    limiter.inserted(0, 20)
    limiter.insert_side.allowed(20)
    limiter.sample_side.allowed(8)
    clock.now = 5.0
    stats = limiter.stats()
    assert (stats.sample_wait_s, stats.sample_refusals, stats.insert_wait_s) == (2.0, 1, 0.0)
    assert 0.0 < limiter.insert_wait([0]) <= 0.1
    assert 0.0 < limiter.sample_wait() <= 0.1


class FleetActor(NamedTuple):
    """An actor of the fleet: its task, and its environment steps a second."""

    task: int
    speed: float


@settings(max_examples=5, deadline=None)
@given(shards=st.integers(1, 4), tasks=st.integers(1, 8), seed=st.integers(0, 1000))
def test_a_fleet_of_500_actors_keeps_the_ratio(shards: int, tasks: int, seed: int) -> None:
    """Actors of random speeds die and are replaced, a shard is away at times, and the learner's speed changes. At the
    end the ratio over all shards is held within two percent. Neither side stalls."""
    rng = random.Random(seed)
    push, batch_size = 32, 64
    limit = RateLimit(samples_per_step=128.0, batch_size=batch_size, warmup=400, max_ahead=200)
    limiters = [RateLimiter(limit, tasks) for _ in range(shards)]
    fleet = [FleetActor(number % tasks, rng.lognormvariate(3.0, 1.0)) for number in range(500)]
    ready = [0.0] * len(fleet)  # transitions that each actor has collected
    turn = list(range(len(fleet)))
    away, checks, ticks = -1, 0, 0
    while min(int(sum(limiter.inserts[task] for limiter in limiters)) for task in range(tasks)) < 8000 * shards:
        ticks += 1
        if ticks % 50 == 0 and shards > 1:  # a shard goes, or comes back
            away = rng.randrange(shards) if away < 0 else -1
        for number in rng.sample(range(len(fleet)), len(fleet)):
            actor = fleet[number]
            if rng.random() < 0.0005:  # the actor dies, and an actor of another speed replaces it
                fleet[number], ready[number] = actor._replace(speed=rng.lognormvariate(3.0, 1.0)), 0.0
                continue
            ready[number] = min(2.0 * push, ready[number] + 0.1 * actor.speed)
            if ready[number] < push:
                continue
            for _ in range(shards):  # like a writer, pass over shards that refuse
                turn[number] = (turn[number] + 1) % shards
                limiter = limiters[turn[number]]
                if turn[number] != away and limiter.may_insert([actor.task]):
                    limiter.inserted(actor.task, push)
                    ready[number] -= push
                    break
        pace = rng.choice((0.3, 1.0, 3.0))
        for shard, limiter in enumerate(limiters):
            if shard != away:
                limiter.sampled(min(limiter.batches_allowed(), int(2000 * pace)) * batch_size)
        steps = sum(max(0, int(limiter.inserts.min()) - limit.warmup) for limiter in limiters)
        samples = sum(limiter.samples for limiter in limiters)
        assert samples <= steps * limit.samples_per_step + ROUNDING
        if steps > 5000 * shards:
            # The learner may be behind, on each shard by at most max_ahead and a push.
            slack = shards * (limit.max_ahead + push) * limit.samples_per_step
            assert samples >= steps * limit.samples_per_step - slack
            checks += 1
        assert ticks < 20_000, "stalled"
    for limiter in limiters:
        limiter.sampled(limiter.batches_allowed() * batch_size)
    ratio = sum(limiter.samples for limiter in limiters) / (
        sum(int(limiter.inserts.min()) - limit.warmup for limiter in limiters) * tasks
    )
    assert ratio == pytest.approx(limit.samples_per_step / tasks, rel=0.02)
    assert checks > 0


# Saved counts of a shard: inserts of both tasks, samples. Then: batches due, and whether the slower task may insert.
RESTORED = [
    ("full and even", (1010, 1010), 16_000, 0, True),
    ("a batch behind", (1010, 1010), 15_992, 1, True),
    ("learner far behind", (1010, 1010), 15_000, 125, False),
    ("learner ahead, as after a loss of counts", (1000, 1000), 16_000, 0, True),
    ("one task behind", (1010, 900), 14_240, 0, True),
    ("empty", (0, 0), 0, 0, True),
]


@pytest.mark.parametrize(("name", "inserts", "samples", "batches", "may"), RESTORED, ids=[row[0] for row in RESTORED])
def test_a_restored_limiter_neither_bursts_nor_stalls(
    name: str, inserts: tuple[int, int], samples: int, batches: int, may: bool
) -> None:
    """A restored limiter grants as many batches as before the save. It accepts the first push unless the actors were
    too far ahead, and then batches are due. It does not repeat a warm-up that was over."""
    limiter = RateLimiter(RateLimit(samples_per_step=16, batch_size=8, warmup=10, max_ahead=4), num_tasks=2)
    limiter.inserts[:], limiter.samples = inserts, samples
    assert limiter.batches_allowed() == batches
    assert limiter.may_insert([int(inserts[1] < inserts[0])]) == may
    assert may or batches > 0, "both sides would wait"
    for _ in range(2000):  # from here on the ratio holds
        for task in (0, 1):
            if limiter.may_insert([task]):
                limiter.inserted(task, 2)
        limiter.sampled(limiter.batches_allowed() * 8)
    due = (int(limiter.inserts.min()) - 10) * 16
    assert max(0, samples) <= limiter.samples and due - 8 < limiter.samples <= max(due, samples)
