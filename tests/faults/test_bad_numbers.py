"""Tests of NaN, infinite and huge numbers: none is pushed or taken over, and no sound data is dropped with them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.actor import Actor, ActorSpec
from actors.backends.actions import ActionScaler, Taken
from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import resolve
from actors.benchmarks.gymnasium_tasks import describe
from actors.door import MOST_IN_A_ROW, BadNumber, Door, OnlyBadNumbers
from actors.environments import Step
from actors.evaluator import Evaluation, Evaluator, EvaluatorSpec
from cluster.run.evaluation_row import evaluation_row, unsound
from learner.agents.catalogue import acting
from learner.networks.modules import Policy
from learner.networks.spec import NetworkSpec
from learner.state.publishing import Outgoing
from replay.client.handle import LocalShard
from replay.client.writer import Writer
from replay.policy_store import PolicyStore
from replay.rate_limiter import RateLimit
from replay.shard import Shard, ShardSpec
from replay.store.rows import CONTEXT, LAST, Push
from tests.support import streams, tiny
from tests.support.live import events

LENGTH = 7  # steps of an episode
WORLD = "gymnasium/tests.support.odd_envs_numbers:"
BAD = (math.nan, math.inf, -math.inf, 1e16, -1e38)


class Scripted:
    """An environment whose observations are (copy, episode, step of the episode). A script makes some numbers bad.

    `script` maps (copy, steps so far) to what is bad then (reward, observation or reset) and the value (a reset: NaN).
    """

    def __init__(self, copies: int, script: dict[tuple[int, int], tuple[str, float]]) -> None:
        self.task = Task(
            name="odd/scripted", observation_keys=(("", 3),), action_size=1, episode_limit=LENGTH, library_id="scripted"
        )
        self.copies = copies
        self.scale: Taken = ActionScaler(np.array([-1.0]), np.array([1.0]))
        self.script = script
        self.episodes = np.zeros(copies, int)
        self.t = np.zeros(copies, int)
        self.steps = 0
        self.restarts = 0

    def observe(self) -> np.ndarray:
        return np.stack([np.arange(self.copies), self.episodes, self.t], axis=1).astype(np.float32)

    def _begin(self, copies: np.ndarray) -> None:
        self.episodes[copies] += 1
        self.t[copies] = 0

    def reset(self) -> np.ndarray:
        return self.observe()

    def restart(self, copies: np.ndarray) -> np.ndarray:
        self.restarts += len(copies)
        self._begin(copies)
        found: np.ndarray = self.observe()[copies]
        return found

    def send(self, actions: np.ndarray) -> None:
        self.steps += 1
        self.t += 1

    def recv(self) -> Step:
        observations, rewards = self.observe(), np.ones(self.copies, np.float32)
        following = np.zeros(self.copies, bool)
        for (copy, step), (what, value) in self.script.items():
            if step == self.steps:
                if what == "reward":
                    rewards[copy] = value
                elif what == "observation":
                    observations[copy, 2] = value
                following[copy] = what == "reset"
        ended = self.t >= LENGTH
        inputs = observations
        if ended.any():
            self._begin(np.flatnonzero(ended))
            inputs = np.where(ended[:, None], self.observe(), observations)
            inputs[following & ended] = np.nan
        never = np.zeros(self.copies, bool)
        return Step(observations, rewards, never, ended, never, inputs)

    def fast_forward(self, resets: object, actions: object, begun: object = ()) -> np.ndarray:
        raise NotImplementedError

    def begun(self) -> list[Any]:
        return []

    def close(self) -> None:
        pass


def actor_on(environments: list[Scripted], length: int = 5) -> tuple[Actor, Shard]:
    copies, tasks = environments[0].copies, range(len(environments))
    storage = streams.spec(
        len(environments),
        10_000,
        observation_shapes=((3,),) * len(environments),
        segment_length=length,
        push_rows=copies * (2 * length + 1),
    )
    shard = Shard(
        ShardSpec(
            index=0,
            storage=storage,
            limit=RateLimit(samples_per_step=1.0, batch_size=1, warmup=1, max_ahead=10**9),
            seed=0,
        )
    )
    played = tuple((i, environments[i].task) for i in tasks)
    networks = NetworkSpec(observation_size=3, action_size=1, num_tasks=len(environments))
    spec = ActorSpec(
        name="odd-0",
        index=0,
        tasks=played,
        copies=copies,
        first_copy=0,
        observation_size=3,
        action_size=1,
        segment_length=length,
        discount=0.99,
        seed=4,
        acting=acting(networks),
    )
    return Actor(spec, environments, Writer("a", [LocalShard(shard)]), PolicyStore()), shard


def steps(actor: Actor, count: int) -> None:
    for _ in range(count):
        actor.step()


SCRIPTS = st.dictionaries(
    st.tuples(st.integers(0, 2), st.integers(1, 40)),
    st.tuples(st.sampled_from(["reward", "observation", "reset"]), st.sampled_from(BAD)),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(script=SCRIPTS)
def test_what_is_pushed_is_finite_and_happened_and_other_copies_lose_nothing(
    script: dict[tuple[int, int], tuple[str, float]],
) -> None:
    world = Scripted(3, script)
    actor, shard = actor_on([world])
    steps(actor, 40)
    actor.finish()
    rows = streams.held(shard.storage.rings[0])
    assert all((np.abs(array) < 1e3).all() for array in rows[:3])
    drawn = np.flatnonzero((rows.flags & (LAST | CONTEXT)) == 0)
    now, following = rows.observations[drawn], rows.observations[drawn + 1]
    np.testing.assert_array_equal(now[:, :2], following[:, :2])  # of the same copy and episode
    np.testing.assert_array_equal(now[:, 2] + 1, following[:, 2])
    spoilt = {copy for copy, _ in script}
    for copy in set(range(3)) - spoilt:
        assert np.count_nonzero(now[:, 0] == copy) == 40
    report = actor.report()
    assert {bad.copy for bad in report.bad} <= spoilt and len(report.bad) >= world.restarts > -1
    assert all(episode.undiscounted_return == episode.length == LENGTH for episode in report.episodes)
    low, high = shard.storage.return_minimum[0], shard.storage.return_maximum[0]
    assert not report.episodes or (np.isfinite(low) and np.isfinite(high))


def test_a_copy_that_gives_nothing_else_ends_its_actor_and_a_sound_episode_in_between_does_not() -> None:
    every = {(0, step): ("reward", math.nan) for step in range(1, 100)}
    actor, _ = actor_on([Scripted(2, every)])
    with pytest.raises(OnlyBadNumbers, match="odd/scripted returned nan as reward in environment copy 0"):
        steps(actor, MOST_IN_A_ROW)
    assert len(actor.report().bad) == MOST_IN_A_ROW
    now_and_then = {(0, step): ("observation", math.inf) for step in range(1, 400, LENGTH + 1)}
    actor, _ = actor_on([Scripted(2, now_and_then)])
    steps(actor, 400)
    assert len(actor.report().bad) > 3 * MOST_IN_A_ROW


def test_a_first_observation_that_stays_bad_is_not_asked_for_for_ever() -> None:
    class Never(Scripted):
        def observe(self) -> np.ndarray:
            return np.full((self.copies, 3), np.nan, np.float32)

    with pytest.raises(OnlyBadNumbers, match=r"first observation\[0\]"):
        actor_on([Never(2, {})])[0].step()


def test_tasks_of_one_actor_do_not_wait_for_each_other_when_one_gives_nothing() -> None:
    """The sound task may be further ahead than `max_ahead`: only this actor could bring rows of the other task."""
    bad = Scripted(1, {(0, step): ("reward", math.nan) for step in range(1, 400) if step % (4 * LENGTH)})
    actor, shard = actor_on([Scripted(1, {}), bad], length=2)
    shard.limiter.limit = replace(shard.limiter.limit, max_ahead=4)
    with pytest.raises(OnlyBadNumbers):
        steps(actor, 60)
    held = shard.storage.transitions
    assert held[1] == 0 < held[0], "a push that has nothing of a task is taken all the same"


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.floats(allow_nan=True, width=32) | st.sampled_from([0.99e15, -0.99e15, 1.01e15, 1e20]),
        min_size=1,
        max_size=30,
    ),
)
def test_the_door_finds_what_numpy_finds(values: list[float]) -> None:
    """The door also judges numbers whose squares overflow, and numbers close to the limit, as numpy does."""
    none, zeros = np.zeros(len(values), bool), np.zeros(len(values), np.float32)
    step = Step(np.array(values, np.float32)[:, None], zeros, none, none, none, zeros[:, None])
    found: deque[BadNumber] = deque()
    world = Scripted(len(values), {})
    world.observe = lambda: np.zeros((len(values), 1), np.float32)  # type: ignore[method-assign]
    _, dropped = Door(0, world, 0, found).check(step)
    np.testing.assert_array_equal(dropped, np.flatnonzero(~(np.abs(values) <= 1e15)))
    assert len(found) == len(dropped)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("origin", ["files", "exact", "dealt"])
@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    where=st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["rewards", "observations"])), max_size=4),
    value=st.sampled_from(BAD),  # in float16, the finite ones become infinite
)
def test_replay_that_is_taken_over_loses_its_bad_segments_and_no_other(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    origin: str,
    lengths: list[int],
    where: list[tuple[int, str]],
    value: float,
) -> None:
    folder = tmp_path_factory.mktemp("replay")
    files = str(folder / "files") if origin == "files" else ""
    storage = streams.spec(1, dtype=dtype)
    spec = ShardSpec(
        index=0,
        storage=storage,
        limit=RateLimit(samples_per_step=4, batch_size=4, warmup=5, max_ahead=1000),
        seed=0,
        shards=1,
        run="r",
        folder=files,
        snapshots=str(folder / "s"),
    )
    shard = Shard(spec)
    shard.insert("a", 0, streams.push(1, *lengths, tasks=(0,)))
    ring = shard.storage.rings[0]
    rows = streams.held(ring)
    segment = np.cumsum(rows.last) - rows.last
    spoilt = set()
    for row, name in where:
        row %= len(rows.flags)
        getattr(ring, name)[row] = value
        spoilt.add(int(segment[row]))
    shard.save("x")
    expected = [
        one.reward for one, of in zip(streams.transitions(rows), segment[~rows.last], strict=True) if of not in spoilt
    ]
    if origin == "files":
        shard.memory.commit()
        shard.close(remove=False)
        again = Shard(replace(spec, take=2))
    else:
        other = streams.spec(1, 300, dtype=dtype) if origin == "dealt" else storage
        again = Shard(replace(spec, storage=other, snapshot="x"))
    assert streams.numbers(again) == expected
    stats = again.stats()
    assert stats.transitions_by_task == [len(expected)] and stats.inserts_by_task == [sum(lengths)]
    assert (stats.bad_segments, stats.bad_transitions) == (len(spoilt), sum(lengths) - len(expected))
    again.insert("b", 0, streams.push(100, 3, tasks=(0,)))
    batches = again.storage.sample(4, 4, again.lock)
    assert (np.abs(batches.observations) < 1e4).all() and (np.abs(batches.rewards) < 1e4).all()
    again.save("y")
    third = Shard(replace(again.spec, snapshot="y", folder=""))
    assert streams.numbers(third) == streams.numbers(again)
    again.close(remove=True)


def test_observations_beyond_float16_are_clipped_and_counted() -> None:
    shard = streams.shard("", tasks=1, dtype="float16")
    rows = streams.segments(0, [3])
    rows.observations[1] = (1e6, -1e6)
    shard.insert("a", 0, Push({0: rows}, {}))
    held = streams.held(shard.storage.rings[0])
    np.testing.assert_array_equal(held.observations[1], np.array([65504, -65504], np.float16))
    assert shard.stats().clipped_by_task == [2]


@pytest.mark.parametrize("bad", [math.inf, 1e20])
def test_return_extremes_that_are_no_numbers_are_forgotten(tmp_path: Path, bad: float) -> None:
    """Rewards are divided by the return extremes, and would be 0 from then on."""
    shard = streams.shard(str(tmp_path))
    shard.insert("a", 0, Push({task: streams.segments(0, [3]) for task in (0, 1)}, {0: (-1.0, bad), 1: (-1, 2)}))
    shard.save("x")
    again = streams.shard(str(tmp_path), snapshot="x")
    assert again.storage.return_maximum.tolist() == [-math.inf, 2] and again.storage.return_minimum[0] == math.inf


def test_an_evaluation_of_bad_numbers_has_no_return_and_does_not_fail() -> None:
    """A policy turns NaN into the action NaN, which the environment refuses. The evaluation goes on all the same."""
    network = NetworkSpec(observation_size=3, action_size=2, num_tasks=1, width=16, policy_width=16)
    message = Outgoing(Policy(network), None, 3).message()
    for name, are_bad in (("Sound", False), ("AlwaysBad", True), ("BadReset", None)):
        task = describe(f"{WORLD}{name}-v0")
        spec = EvaluatorSpec(
            tasks=(task,),
            played=(0,),
            episodes=3,
            observation_size=3,
            action_size=2,
            seed=0,
            acting=acting(network),
            backend="gymnasium",
        )
        found = Evaluator(spec).evaluate(message, 0).returns[task.name]
        assert are_bad is None or np.isnan(found).all() == np.isnan(found).any() == are_bad


@pytest.mark.parametrize("execution", ["serial", "distributed"])
def test_a_run_goes_on_without_what_was_bad(folder: Path, execution: str) -> None:
    """The run meets its budget and its ratio to the step, and reports the bad number of each task once."""
    tasks = [f"{WORLD}{name}-v0" for name in ("BadReward", "BadLastObservation", "BadReset", "Huge")]
    done = tiny.train(folder, "a", "--tasks", *tasks, "--steps=900", f"--execution={execution}")
    assert done.returncode == 0, done.stdout + done.stderr
    last = tiny.rows(folder, "a", "metrics")[-1]
    assert last["env_steps"] == 900 and last["updates"] == 150
    assert last["samples_per_insert"] == pytest.approx(2.0)
    assert last["bad_episodes"].keys() == set(tasks) and all(count > 10 for count in last["bad_episodes"].values())
    told = {event["task"]: event["value"] for event in events(folder, "a", "bad_numbers")}
    assert told.keys() == set(tasks) and set(told.values()) == {"nan", "inf", "1.0000000200408773e+20"}
    assert len(events(folder, "a", "bad_numbers")) == done.stdout.count("the episode is dropped") == 4


@pytest.mark.parametrize("execution", ["serial", "distributed"])
def test_a_task_that_gives_nothing_else_ends_the_run_with_its_name(folder: Path, execution: str) -> None:
    """The run ends although the other task of the same actor is sound."""
    tasks = ["--tasks", f"{WORLD}Sound-v0", f"{WORLD}AlwaysBad-v0"]
    done = tiny.train(folder, "a", *tasks, "--steps=5000", f"--execution={execution}")
    assert done.returncode == 1, done.stdout + done.stderr
    (failed,) = events(folder, "a", "failed")
    assert "AlwaysBad-v0 returned inf as reward" in failed["reason"]
    assert len(events(folder, "a", "actor_died")) == (2 if execution == "distributed" else 0)


def test_observations_that_are_clipped_are_told_once(folder: Path) -> None:
    options = (f"--tasks={WORLD}Large-v0", "--execution=serial", "--replay.observation-dtype=float16")
    done = tiny.train(folder, "a", *options, "--steps=600")
    assert done.returncode == 0 and done.stdout.count("clips") == 1, done.stdout + done.stderr
    assert len(events(folder, "a", "observations_clipped")) == 1


def test_scores_are_of_the_episodes_that_gave_numbers() -> None:
    tasks = resolve(["dmc/walker-walk", "metaworld/reach", "dmc/cheetah-run"])
    walk, reach, cheetah = (task.name for task in tasks)
    returns = {walk: [100.0, math.nan, 300.0], reach: [1.0, 2.0, math.inf], cheetah: [500.0, 500.0, 500.0]}
    successes = {walk: [False] * 3, reach: [True, False, True], cheetah: [False] * 3}
    lengths = {task: [3, 3, 3] for task in returns}
    row = evaluation_row(tasks, Evaluation(returns, lengths, successes, 7), 0, 0.0)
    assert row.mean_return == {walk: 200.0, reach: 1.5, cheetah: 500.0} and row.success[reach] == 0.5
    assert row.score == pytest.approx({walk: 0.2, reach: 0.5, cheetah: 0.5})
    assert row.score_mean == pytest.approx(2.9 / 7) and row.score_iqm == pytest.approx(0.4)
    assert row.bad_episodes == {walk: 1, reach: 1}
    assert unsound(returns)[0] == f"{walk}: 1 of 3 episodes gave numbers that are none" and len(unsound(returns)) == 2
    none = evaluation_row(tasks, Evaluation(returns | {walk: [math.nan] * 3}, lengths, successes, 7), 0, 0.0)
    assert none.mean_return[walk] is none.score[walk] is none.score_mean is none.score_iqm is None
    sound = evaluation_row(tasks[2:], Evaluation({cheetah: [1.0]}, {}, {cheetah: [False]}, 7), 0, 0.0)
    assert not sound.bad_episodes


def test_brc_eval_says_how_many_episodes_gave_no_numbers(folder: Path) -> None:
    done = tiny.train(
        folder, "a", f"--tasks={WORLD}Sometimes-v0", "--execution=serial", "--steps=400", "--evaluation.episodes=12"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = tiny.rows(folder, "a", "eval")[-1]
    (bad,) = last["bad_episodes"].values()
    assert 0 < bad < 12 and f"{bad} of 12 episodes gave numbers that are none" in done.stdout
    said = tiny.run("eval", "a", f"--runs-folder={folder}/runs", "--episodes=12").stdout
    assert "nan" not in said and "of 12 episodes gave numbers that are none" in said
