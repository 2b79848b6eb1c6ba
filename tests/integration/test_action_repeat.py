"""Tests of repeated actions: rewards are summed, ends are respected, and a step of a run is one action."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import resolve
from actors.environments import make_environment
from cluster.config.schema import ActorsConfig
from dashboards.sinks import records
from tests.integration.test_serial import StopAt, assert_identical, config, run

CASES = [
    ("envpool", "dmc/walker-walk"),
    ("envpool", "playground/H1JoystickGaitTracking"),  # random actions end its episodes early
    ("dm_control", "dmc/cartpole-swingup"),
    ("gymnasium", "gymnasium/tests.support.counting:Counting-v0"),
    ("gymnasium", "gymnasium/Hopper-v5"),
]


def shortened(name: str, limit: int) -> Task:
    (task,) = resolve([name])
    return replace(task, episode_limit=min(limit, task.episode_limit))


@pytest.mark.parametrize(("backend", "name"), CASES)
@pytest.mark.parametrize("repeat", [2, 3])
def test_a_step_is_several_steps_of_the_environment(backend: str, name: str, repeat: int) -> None:
    """Each copy is compared with an environment that holds the action itself and stops at the end of an episode."""
    task = shortened(name, 25)
    repeated = task.repeated(repeat)
    assert repeated.episode_limit == -(-task.episode_limit // repeat)
    assert repeated.repeated(1) == task
    seeds = [4, 5, 6]
    environment = make_environment(backend, repeated, seeds)
    plain = [make_environment(backend, task, [seed]) for seed in seeds]
    np.testing.assert_array_equal(environment.reset(), np.concatenate([one.reset() for one in plain]))
    rng, ends = np.random.default_rng(0), 0
    for _ in range(60):
        actions = rng.uniform(-1, 1, (3, task.action_size)).astype(np.float32)
        environment.send(actions)
        step = environment.recv()
        for copy, one in enumerate(plain):
            total, success, over = np.float32(0.0), False, False
            for _ in range(repeat):
                one.send(actions[copy : copy + 1])
                last = one.recv()
                total, success = total + last.rewards[0], success or last.successes[0]
                over = bool(last.terminated[0] or last.truncated[0])
                if over:
                    break
            np.testing.assert_array_equal(step.observations[copy], last.observations[0])
            np.testing.assert_array_equal(step.next_inputs[copy], last.next_inputs[0])
            np.testing.assert_allclose(step.rewards[copy], total, rtol=1e-6)
            assert step.terminated[copy] == last.terminated[0] and step.truncated[copy] == last.truncated[0]
            assert step.successes[copy] == success
            ends += over
    assert ends >= 6


@pytest.mark.parametrize("tasks", [("dmc/cartpole-swingup",), ("gymnasium/tests.support.counting:Counting-v0",)])
def test_a_run_with_repeated_actions_is_resumed_exactly(tmp_path: Path, tasks: tuple[str, ...]) -> None:
    actors = ActorsConfig(count=1, copies=2, action_repeat=2)
    unbroken = run(config(tmp_path, "unbroken", tasks=tasks, actors=actors, steps=900))
    run(config(tmp_path, "broken", tasks=tasks, actors=actors, steps=900), StopAt(640))
    assert_identical(unbroken, run(config(tmp_path, "broken", tasks=tasks, actors=actors, steps=900, resume=True)))
    last = records.read(tmp_path / "unbroken" / "eval.jsonl")[-1]
    assert last["env_steps"] == 900
    assert next(iter(last["lengths"].values())) == [500 if tasks[0].startswith("dmc") else 4]


def test_another_repeat_is_another_run(tmp_path: Path) -> None:
    run(config(tmp_path, "a", steps=400))
    with pytest.raises(Exception, match="action-repeat"):
        run(config(tmp_path, "a", steps=500, resume=True, actors=ActorsConfig(count=1, copies=2, action_repeat=2)))
