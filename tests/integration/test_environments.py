"""Tests of dm_control (sizes, key order, physics of both backends) and of the seeds and names of every benchmark."""

from __future__ import annotations

import ctypes.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import envpool
import numpy as np
import pytest
from envpool.registration import registry

from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import UnknownNameError, all_tasks, benchmarks, resolve, suites
from actors.environments import copy_seed, make_environment

ALL = [task for task in all_tasks().values() if task.benchmark == "dmc"]


def task(name: str) -> Task:
    return all_tasks()[f"dmc/{name}"]


@pytest.mark.parametrize("gl", ["disabled", "osmesa"])
def test_the_table_agrees_with_dm_control_for_all_51_tasks(gl: str) -> None:
    """A new process loads dm_control: quadruped-escape renders, and GL must be chosen before the import."""
    if gl == "osmesa" and not ctypes.util.find_library("OSMesa"):
        pytest.skip("needs OSMesa: apt install libosmesa6")
    script = (
        "import json, os, numpy as np\n"
        "from dm_control import suite\n"
        "found = {}\n"
        "for domain, name in suite.ALL_TASKS:\n"
        "    if ((domain, name) == ('quadruped', 'escape')) != (os.environ['MUJOCO_GL'] == 'osmesa'): continue\n"
        "    environment = suite.load(domain, name)\n"
        "    keys = [[k, int(np.size(v))] for k, v in environment.reset().observation.items()]\n"
        "    found[f'dmc/{domain}-{name}'] = [keys, environment.action_spec().shape[0]]\n"
        "print(json.dumps(found))\n"
    )
    environment = os.environ | {"MUJOCO_GL": gl}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    expected = {t.name: [[list(key) for key in t.observation_keys], t.action_size] for t in ALL}
    escape = {"dmc/quadruped-escape": expected.pop("dmc/quadruped-escape")}
    assert found == (escape if gl == "osmesa" else expected)
    assert len(ALL) == 51


@pytest.mark.parametrize("name", [t.short_name for t in ALL])
def test_envpool_serves_every_task_in_dm_control_sizes(name: str) -> None:
    environment = make_environment("envpool", task(name), [7])
    first = environment.reset()
    assert first.shape == (1, task(name).observation_size) and first.dtype == np.float32
    environment.send(np.zeros((1, task(name).action_size), np.float32))
    step = environment.recv()
    assert step.observations.dtype == step.rewards.dtype == np.float32
    assert np.isfinite(step.observations).all()
    environment.close()


@pytest.mark.parametrize("benchmark", ["playground", "myosuite", "robotics"])
def test_the_tables_agree_with_envpool(benchmark: str) -> None:
    """Sizes, limits and the names of success are those of the library, and none of its tasks is missing."""
    module = f"envpool.mujoco.{benchmark}"
    theirs = {name for name, spec in registry.specs.items() if str(spec[0]) == module and "/" not in name}
    ours = benchmarks()[benchmark].tasks.values()
    newest = {re.sub(r"-v\d+$", "", name) for name in theirs}
    assert {re.sub(r"-v\d+$", "", one.library_id) for one in ours} == newest and len(ours) == len(newest)
    for one in ours:
        assert one.library_id == max(name for name in theirs if re.sub(r"-v\d+$", "", name) == one.library_id[:-3])
        spec: Any = envpool.make_spec(one.library_id)
        space, actions = spec.gymnasium_observation_space, spec.gymnasium_action_space
        parts = space.spaces if one.observation_keys[0][0] else {"": space}
        for key, size in one.observation_keys:
            assert parts[key].shape == (size,), one.name
        missing = set(parts) - {key for key, _ in one.observation_keys}
        assert not missing or one.short_name == "FrankaKitchen"  # whose goals are constant
        assert actions.shape == (one.action_size,) and spec.config.max_episode_steps == one.episode_limit
        if one.success_key:
            assert f"info:{one.success_key}" in spec.state_array_spec
        else:
            assert not {"info:success", "info:is_success", "info:solved"} & set(spec.state_array_spec), one.name


def test_random_tasks_of_myosuite_are_named_where_envpool_draws_nothing() -> None:
    """`caution` follows envpool's version. If this fails with a newer one, docs/benchmarks.md is to be changed too."""
    benchmark = benchmarks()["myosuite"]
    for name in ("myoHandReachRandom", "MyoHandAirplaneRandom"):
        one = benchmark.tasks[f"myosuite/{name}"]
        environment = make_environment("envpool", one, [1, 2])
        first = environment.reset()
        assert np.array_equal(first[0], first[1]) == bool(benchmark.caution(one))


def test_sizes_that_the_literature_names() -> None:
    assert task("dog-run").observation_size == 223 and task("humanoid-run").observation_size == 67


def test_copies_that_end_at_different_steps_are_reset_alone() -> None:
    """Copies that begin at different steps of their episodes act as each does in a pool of its own."""
    short = replace(task("walker-walk"), episode_limit=7)
    alone = [make_environment("envpool", short, [seed]) for seed in (5, 6)]
    together = make_environment("envpool", short, [5, 6])
    begun = [np.full((steps, 6), 0.3, np.float32) for steps in (2, 4)]
    inputs = together.fast_forward([1, 1], begun)
    singles = [one.fast_forward([1], [actions]) for one, actions in zip(alone, begun, strict=True)]
    np.testing.assert_array_equal(inputs, np.concatenate(singles))
    ends = []
    for _ in range(20):
        actions = np.full((2, 6), 0.3, np.float32)
        together.send(actions)
        step = together.recv()
        ends.append(step.truncated.tolist())
        for copy, one in enumerate(alone):
            one.send(actions[copy : copy + 1])
            single = one.recv()
            np.testing.assert_array_equal(step.observations[copy], single.observations[0])
            np.testing.assert_array_equal(step.next_inputs[copy], single.next_inputs[0])
    assert [index for index, (first, _) in enumerate(ends) if first] == [4, 11, 18]
    assert [index for index, (_, second) in enumerate(ends) if second] == [2, 9, 16]


@pytest.mark.parametrize(("name", "parts"), [("cartpole-swingup", 2), ("cheetah-run", 2)])
def test_envpool_steps_like_dm_control(name: str, parts: int) -> None:
    """From the same state the same action leads to the same observation and reward, through a whole episode.

    The state of these tasks can be set from their observations.
    """
    from dm_control import suite

    domain, short = task(name).short_name.split("-")
    reference = suite.load(domain, short, task_kwargs={"random": 0})
    reference.reset()
    environment = make_environment("envpool", task(name), [3])
    before = environment.reset()[0].astype(np.float64)
    rng = np.random.default_rng(0)
    bounds_lost = 0
    for _ in range(1000):
        physics = reference.physics
        with physics.reset_context():
            if domain == "cartpole":  # cart, cos, sin, velocities
                physics.data.qpos[:] = [before[0], np.arctan2(before[2], before[1])]
                physics.data.qvel[:] = before[3:]
            else:  # cheetah: all positions but the first, which nothing depends on
                physics.data.qpos[:] = [0.0, *before[:8]]
                physics.data.qvel[:] = before[8:]
        action = rng.uniform(-1, 1, task(name).action_size)
        reference._reset_next_step = False
        timestep = reference.step(action)
        environment.send(action[None].astype(np.float32))
        step = environment.recv()
        expected = np.concatenate([np.ravel(timestep.observation[key]) for key, _ in task(name).observation_keys])
        # The state was set from float32 observations: their rounding errors grow with the dynamics.
        error = np.abs(step.observations[0] - expected).max() / max(1.0, np.abs(expected).max())
        bounds_lost += error > 2e-4
        assert abs(step.rewards[0] - timestep.reward) < 1e-3
        before = step.next_inputs[0].astype(np.float64)
    assert bounds_lost <= 5, "more than rounding separates the two"


def random_returns(backend: str, name: str, episodes: int, seed: int) -> np.ndarray:
    copies = 10
    environment = make_environment(backend, task(name), [seed + copy for copy in range(copies)])
    environment.reset()
    rng = np.random.default_rng(seed)
    finished: list[float] = []
    totals = np.zeros(copies)
    while len(finished) < episodes:
        environment.send(rng.uniform(-1, 1, (copies, task(name).action_size)).astype(np.float32))
        step = environment.recv()
        totals += step.rewards
        for copy in np.flatnonzero(step.truncated | step.terminated):
            finished.append(totals[copy])
            totals[copy] = 0.0
    return np.array(finished)


ONE_A_DOMAIN = sorted({t.short_name.split("-")[0]: t.short_name for t in ALL if "escape" not in t.name}.values())


def compare_random_returns(name: str) -> None:
    ours, theirs = (random_returns(backend, name, 50, seed=100) for backend in ("envpool", "dm_control"))
    error = np.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs))
    # Four standard errors give a false alarm in 16,000 comparisons. The 0.5 is for tasks that give hardly any reward.
    assert abs(ours.mean() - theirs.mean()) < 4 * error + 0.5, (ours.mean(), theirs.mean(), error)


@pytest.mark.long
def test_envpool_and_dm_control_agree_in_random_return() -> None:
    compare_random_returns("walker-walk")


@pytest.mark.long
@pytest.mark.parametrize("name", sorted({*ONE_A_DOMAIN, "humanoid-run", "dog-run"}))
def test_envpool_and_dm_control_agree_in_random_return_in_every_domain(name: str) -> None:
    compare_random_returns(name)


# Sums of rewards over the first 60 steps of TD-MPC2's own tasks, at commit e9f5932, for the same seed and actions.
EXTRA = {
    "ball_in_cup-spin": 0.286380,
    "cheetah-run-backwards": 0.540715,
    "cheetah-run-front": 0.391047,
    "cheetah-run-back": 0.380932,
    "cheetah-jump": 10.810425,
    "hopper-hop-backwards": 0.219100,
    "pendulum-spin": 26.947552,
    "walker-walk-backwards": 8.384520,
    "walker-run-backwards": 3.865014,
}


@pytest.mark.parametrize("name", EXTRA)
def test_extra_tasks_pay_what_those_of_their_authors_pay(name: str) -> None:
    (made,) = resolve([f"dmc-extra/{name}"])
    environment, rng = make_environment("envpool", made, [3]), np.random.default_rng(0)
    environment.reset()
    total = 0.0
    for _ in range(60):
        environment.send(rng.uniform(-1, 1, (1, made.action_size)).astype(np.float32))
        total += float(environment.recv().rewards[0])
    assert total == pytest.approx(EXTRA[name], rel=1e-3, abs=1e-4)


def test_reaching_with_three_links_is_paid_at_the_target() -> None:
    from actors.benchmarks import dmc_extra

    environment = dmc_extra.load("reacher-three_easy", 0)
    environment.reset()
    physics = environment.physics
    assert environment.task.get_reward(physics) == 0.0
    physics.named.model.geom_pos["target", ["x", "y"]] = physics.named.data.geom_xpos["finger", ["x", "y"]]
    physics.forward()
    assert environment.task.get_reward(physics) == 1.0


def test_seeds_are_unique_over_streams_and_copies() -> None:
    seeds = {copy_seed(7, stream, index) for stream in (0, 1, 2, 2046) for index in range(5000)}
    assert len(seeds) == 4 * 5000 and min(seeds) >= 0 and max(seeds) < 2**31
    with pytest.raises(ValueError, match="outside"):
        copy_seed(0, 0, 1 << 20)


def test_dm_control_backend_truncates_and_resets() -> None:
    short = replace(task("lqr-lqr_2_1"), episode_limit=6)
    environment = make_environment("dm_control", short, [1, 2])
    environment.reset()
    for index in range(6):
        environment.send(np.zeros((2, 1), np.float32))
        step = environment.recv()
        assert step.truncated.all() == (index == 5) and not step.terminated.any()
    assert not np.array_equal(step.next_inputs, step.observations)


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"dmc/dog-run"):
        resolve(["dmc/dog-rum"])
    with pytest.raises(UnknownNameError, match=r"dmc/walker-walk"):
        resolve(["walker-walk"])
    assert len(resolve(["dmc-dogs", "dmc/dog-run"])) == 4
    assert len(suites()["dmc-all"]) == 51
