"""Tests of the actor: it pushes what happened, acts with the learner's policy, and reports the right episodes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.actor import Actor, ActorSpec, make_environments
from actors.benchmarks.benchmark import Task
from actors.environments import Step, make_environment
from actors.episodes import EpisodeTracker
from actors.evaluator import Evaluator, EvaluatorSpec
from actors.policies.policy import TanhNormalPolicy
from actors.segments import SegmentBuilder
from learner.agents import tanh_normal
from learner.agents.catalogue import acting
from learner.networks.modules import Critic, Policy
from learner.networks.spec import NetworkSpec
from learner.state.publishing import Outgoing
from replay.client.handle import LocalShard
from replay.client.writer import Writer
from replay.policy_store import PolicyStore
from replay.rate_limiter import RateLimit
from replay.shard import Shard, ShardSpec
from replay.store.returns import discounted_return_extremes
from replay.store.rows import Rows
from replay.store.storage import StorageSpec
from tests.integration.test_conformance import FIVE
from tests.integration.test_environments import task
from tests.support import golden_vectors as golden
from tests.support.streams import held


def short(name: str, limit: int) -> Task:
    return replace(task(name), episode_limit=limit)


def actor_on(tasks: list[Task], copies: int = 2, length: int = 8) -> tuple[Actor, Shard, PolicyStore]:
    sizes = tuple(one.observation_size for one in tasks)
    widest = max(one.action_size for one in tasks)
    names, shapes = tuple(one.name for one in tasks), tuple((size,) for size in sizes)
    storage = StorageSpec(
        tasks=names,
        observation_shapes=shapes,
        action_size=widest,
        capacity=(4000,) * len(tasks),
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
    how = acting(
        NetworkSpec(observation_size=max(sizes), action_size=widest, num_tasks=len(tasks), width=16, policy_width=16)
    )
    spec = ActorSpec(
        name="dmc-0",
        index=0,
        tasks=tuple(enumerate(tasks)),
        copies=copies,
        first_copy=0,
        observation_size=max(sizes),
        action_size=widest,
        segment_length=length,
        discount=0.99,
        seed=4,
        acting=how,
    )
    store = PolicyStore()
    return Actor(spec, make_environments(spec), Writer("a", [LocalShard(shard)]), store), shard, store


@pytest.mark.parametrize("name", FIVE)
def test_pushed_transitions_are_those_of_the_pool_driven_by_hand(name: str) -> None:
    """Pushed observations, actions, rewards, terminal flags and next observations are bit-equal to those of envpool.
    Truncations fall inside segments and at their edges."""
    copies, limit, length, steps = 2, 20, 8, 64
    one = short(name, limit)
    actor, shard, _ = actor_on([one], copies, length)
    seeds = [actor.spec.seed * 1_000_003 + copy for copy in range(copies)]
    pool = make_environment("envpool", one, seeds)
    inputs = pool.reset()
    for _ in range(steps):
        actor.step()
    rows = held(shard.storage.rings[0])
    # Every segment length there is one push. It holds one copy after the other.
    streams: list[list[tuple[np.ndarray, ...]]] = [[] for _ in range(copies)]
    copy, filled = 0, 0
    for i in range(len(rows.flags)):
        if rows.last[i]:
            continue
        streams[copy].append(
            (rows.observations[i], rows.actions[i], rows.rewards[i], rows.terminals[i], rows.observations[i + 1])
        )
        filled += 1
        if filled == length:
            copy, filled = (copy + 1) % copies, 0
    assert [len(stream) for stream in streams] == [steps] * copies
    for index in range(steps):
        actions = np.stack([streams[copy][index][1] for copy in range(copies)])
        pool.send(actions)
        step = pool.recv()
        for copy in range(copies):
            observation, _, reward, terminal, following = streams[copy][index]
            np.testing.assert_array_equal(observation, inputs[copy])
            np.testing.assert_array_equal(following, step.observations[copy])
            assert reward == step.rewards[copy] and terminal == step.terminated[copy]
        inputs = step.next_inputs
    assert len(actor.report().episodes) == copies * (steps // limit)


def test_one_policy_call_serves_tasks_of_different_sizes() -> None:
    tasks = [short("cartpole-swingup", 15), short("cheetah-run", 15)]
    actor, shard, store = actor_on(tasks)
    for _ in range(8):
        actor.step()
    assert actor.report().policy_version == -1
    torch.manual_seed(0)
    spec = NetworkSpec(observation_size=17, action_size=6, num_tasks=2, width=16, policy_width=16)
    critic, policy = Critic(spec), Policy(spec)
    store.put(Outgoing(policy, critic.embedding_table(), 3).message())
    for _ in range(16):
        actor.step()
    report = actor.report()
    assert report.policy_version == 3 and report.transitions == 24 * 4
    # A freshly initialised policy is nearly deterministic, so its actions are close to its mean.
    for index in (0, 1):
        rows = held(shard.storage.rings[index])
        acted = np.flatnonzero(~rows.last)[32:]  # the policy came with the second push
        observations = np.zeros((len(acted), 17), np.float32)
        observations[:, : tasks[index].observation_size] = rows.observations[acted]
        embedding = critic.embed(torch.full((len(acted),), index))
        with torch.no_grad():
            mean, log_std = policy(torch.from_numpy(observations), embedding)
        bound = 6 * log_std.exp().numpy() + 1e-5
        assert (
            np.abs(np.arctanh(np.clip(rows.actions[acted], -1 + 1e-7, 1 - 1e-7)) - mean.numpy()) < bound + 0.05
        ).all()
    assert held(shard.storage.rings[0]).actions[:10, 1:].any(), "padded action dimensions hold noise too"


@pytest.mark.parametrize("tasks", [1, 3])
def test_numpy_policy_equals_torch_policy(tasks: int) -> None:
    arrays = golden.load(f"a_forward_{'multi' if tasks > 1 else 'single'}_f32", torch.float32)
    spec = golden.spec(tasks)
    critic, policy = Critic(spec), Policy(spec)
    golden.set_critic(critic, arrays, "critic/")
    golden.set_policy(policy, arrays, "actor/")
    batch = golden.batch(arrays, "in/")
    message = Outgoing(policy, critic.embedding_table(), 7).message()
    numpy_policy = TanhNormalPolicy(acting(spec), message, batch.task_ids.numpy())
    observations = batch.observations.numpy()
    with torch.no_grad():
        mean, log_std = policy(batch.observations, critic.embed(batch.task_ids))
        noise = torch.from_numpy(np.random.default_rng(3).standard_normal((16, 4), dtype=np.float32))
        actions, _ = tanh_normal.sample(mean, log_std, noise)
    ours = numpy_policy.distribution(observations)
    np.testing.assert_allclose(ours[0], mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(ours[1], log_std.numpy(), atol=1e-5)
    np.testing.assert_allclose(numpy_policy.explore(observations, np.random.default_rng(3)), actions.numpy(), atol=1e-5)
    np.testing.assert_allclose(numpy_policy.act(observations), np.tanh(mean.numpy()), atol=1e-5)
    assert numpy_policy.version == 7


@settings(max_examples=50, deadline=None)
@given(
    copies=st.integers(1, 4),
    length=st.integers(1, 6),
    ends=st.lists(
        st.lists(st.sampled_from(["", "", "", "terminated", "truncated"]), min_size=4, max_size=4), max_size=24
    ),
)
def test_segments_keep_every_step_of_every_copy(copies: int, length: int, ends: list[list[str]]) -> None:
    """Segments equal streams kept as plain lists, for any pattern of episode ends."""
    builder = SegmentBuilder(
        copies, Task(name="", observation_keys=(("", 1),), action_size=1, episode_limit=1000, library_id=""), 1, length
    )
    inputs = np.arange(copies, dtype=np.float32)[:, None] * 1000
    expected: list[list[Any]] = [[] for _ in range(copies)]
    found: list[list[Any]] = [[] for _ in range(copies)]
    for counter, row in enumerate(ends, start=1):
        terminated = np.array([kind == "terminated" for kind in row[:copies]])
        truncated = np.array([kind == "truncated" for kind in row[:copies]])
        observations = inputs + 1
        next_inputs = observations
        if (terminated | truncated).any():
            next_inputs = np.where((terminated | truncated)[:, None], observations + 50, observations)
        actions = np.full((copies, 1), counter, np.float32)
        step = Step(observations, actions[:, 0] * 2, terminated, truncated, np.zeros(copies, bool), next_inputs)
        builder.append(inputs, actions, step)
        for copy in range(copies):
            expected[copy].append((inputs[copy, 0], counter, counter * 2, terminated[copy], observations[copy, 0]))
        inputs = next_inputs
        if builder.full:
            collect(builder.take(inputs), found)
    if builder.steps:
        collect(builder.take(inputs), found)
    assert found == expected


def collect(rows: Rows, found: list[list[tuple[float, ...]]]) -> None:
    assert rows.last[-1]
    for i in np.flatnonzero(~rows.last):
        copy = int(rows.observations[i, 0] // 1000)
        found[copy].append(
            (
                rows.observations[i, 0],
                rows.actions[i, 0],
                rows.rewards[i],
                rows.terminals[i],
                rows.observations[i + 1, 0],
            )
        )


def test_return_extremes_follow_the_reference() -> None:
    """The extremes equal the running extremes in golden file f after every step, in float32."""
    arrays = {key: value.numpy() for key, value in golden.load("f_reward_normalizer", torch.float64).items()}
    ends = arrays["terminals"] | arrays["truncations"]
    for index in range(arrays["rewards"].shape[1]):
        least, greatest, start = np.inf, -np.inf, 0
        for step in range(len(ends)):
            if ends[step, index]:
                rewards = arrays["rewards"][start : step + 1, index]
                low, high = discounted_return_extremes(rewards, bool(arrays["truncations"][step, index]), 0.99)
                least, greatest, start = min(least, low), max(greatest, high), step + 1
            np.testing.assert_allclose(least, arrays["min_after"][step, index], rtol=2e-6)
            np.testing.assert_allclose(greatest, arrays["max_after"][step, index], rtol=2e-6)


def test_a_terminal_at_the_limit_is_not_bootstrapped() -> None:
    tracker = EpisodeTracker(0, copies=1, discount=0.5, episode_limit=2)
    one, both = np.ones(1, np.float32), np.ones(1, bool)
    observations = np.zeros((1, 1), np.float32)
    running = Step(observations, one, ~both, ~both, ~both, observations)
    ended = Step(observations, one, both, both, both, observations.copy())
    assert tracker.append(running) == ([], None)
    episodes, extremes = tracker.append(ended)
    assert extremes == (1.0, 1.5)
    assert episodes[0].length == 2 and episodes[0].undiscounted_return == 2.0 and episodes[0].success


def test_evaluation_is_deterministic_and_counts_one_episode_a_copy() -> None:
    tasks = (short("cartpole-swingup", 30), short("cheetah-run", 50))
    spec = NetworkSpec(observation_size=17, action_size=6, num_tasks=2, width=16, policy_width=16)
    message = Outgoing(Policy(spec), Critic(spec).embedding_table(), 1).message()
    evaluator = Evaluator(
        EvaluatorSpec(
            tasks=tasks,
            played=tuple(range(len(tasks))),
            episodes=3,
            observation_size=17,
            action_size=6,
            seed=0,
            acting=acting(spec),
        )
    )
    first, again = evaluator.evaluate(message, 2), evaluator.evaluate(message, 2)
    assert first == again and evaluator.evaluate(message, 3) != first
    assert first.lengths == {"dmc/cartpole-swingup": [30] * 3, "dmc/cheetah-run": [50] * 3}
    assert evaluator.evaluate(None, 0).returns != first.returns


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        ("actors.actor, actors.backends.envpool, actors.evaluator, actors.process", "torch"),
        ("actors.actor, actors.backends.envpool, actors.evaluator, actors.process", "matplotlib"),
        ("actors.actor, actors.backends.envpool, actors.policies.policy, replay.shard, replay.client.writer", "ray"),
        ("learner.learner, learner.agents.brc, learner.state.checkpoint, replay.store.storage", "ray"),
        ("learner.learner, replay.shard, replay.client.sampler", "actors"),
        ("learner.learner, actors.actor, replay.shard, dashboards.sinks.console", "cluster"),
        ("cluster.cli.main, cluster.training, cluster.process, cluster.preflight.origin", "torch"),
        ("cluster.cli.main, cluster.training", "ray"),
    ],
)
def test_dependencies_point_one_way(modules: str, forbidden: str) -> None:
    script = f"import sys, {modules}; sys.exit(any(m.split('.')[0] == {forbidden!r} for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_a_limit_that_means_no_end_takes_no_room() -> None:
    """The tracker's memory grows with the episodes, not with their limit. A saved state holds only the steps made, and
    a loaded state may be longer."""
    copies, rng = 2, np.random.default_rng(0)
    none = np.zeros(copies, bool)
    long, exact = EpisodeTracker(0, copies, 0.99, 10**12), EpisodeTracker(0, copies, 0.99, 5000)
    observations = np.zeros((copies, 1), np.float32)
    for step in range(1, 5001):
        rewards, over = rng.standard_normal(copies).astype(np.float32), np.array([step == 5000, step == 700])
        following = observations.copy() if over.any() else observations
        taken = Step(observations, rewards, over, none, none, following)
        assert long.append(taken) == exact.append(taken)
        if step in (600, 3000):
            saved = long.state()
            assert saved["rewards"].shape == (copies, step)
            full = saved | {"rewards": np.pad(saved["rewards"], ((0, 0), (0, 5000 - step)))}
            long, exact = EpisodeTracker(0, copies, 0.99, 10**12), EpisodeTracker(0, copies, 0.99, 5000)
            long.load_state(saved)
            exact.load_state(full)
    assert long.lengths.tolist() == [0, 4300] and long.rewards.nbytes < 100_000
