"""Tests of vectorised simulators: in every autoreset mode, only true transitions reach replay."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from actors.backends.actions import box_scaler
from actors.backends.returned import BadEnvironment
from actors.backends.vector import VectorEnvironment
from actors.benchmarks.catalogue import UnknownNameError, resolve
from actors.environments import make_environment
from replay.store.rows import NOT_DRAWN
from tests.integration.test_actor import actor_on
from tests.integration.test_serial import config, run
from tests.support import tiny
from tests.support.streams import held

SIMS = "vector/tests.support.vector_sims:"
MODES = ["next_step", "same_step", "disabled"]


def sim(name: str) -> Any:
    (task,) = resolve([SIMS + name])
    return task


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kind", "by_hand"), [("hopper", "Hopper-v5"), ("counting", "Counting-v0")])
def test_transitions_are_those_of_copies_driven_by_hand(kind: str, by_hand: str, mode: str) -> None:
    """Each copy equals gymnasium's environment alone. Idle steps, whose action is not used, are no transitions."""
    task, seeds, rng = sim(f"{kind}_{mode}"), [3, 4, 5], np.random.default_rng(0)
    environment = make_environment("", task, seeds)
    alone = [gymnasium.make(by_hand) for _ in seeds]
    scale = box_scaler(alone[0].action_space)

    def flat(observed: Any) -> np.ndarray:
        parts = [np.ravel(observed[key] if key else observed) for key, _ in task.observation_keys]
        return np.concatenate(parts).astype(np.float32)

    inputs = environment.reset()
    for copy, one in enumerate(alone):
        np.testing.assert_array_equal(inputs[copy], flat(one.reset(seed=seeds[copy])[0]))
    ends, idle_steps, begins = 0, 0, [False] * 3
    for _ in range(120):
        actions = rng.uniform(-1, 1, (3, task.action_size)).astype(np.float32)
        environment.send(actions)
        step = environment.recv()
        idle = np.zeros(3, bool) if step.idle is None else step.idle
        over = step.terminated | step.truncated
        assert (step.next_inputs is step.observations) == (not over.any())
        for copy, one in enumerate(alone):
            if idle[copy]:
                assert begins[copy] and not over[copy]
                idle_steps, begins[copy] = idle_steps + 1, False
                np.testing.assert_array_equal(step.next_inputs[copy], flat(one.reset()[0]))
                continue
            observed, reward, terminated, truncated, info = one.step(scale(actions[copy]))
            np.testing.assert_array_equal(step.observations[copy], flat(observed))
            assert step.rewards[copy] == np.float32(reward)
            assert (step.terminated[copy], step.truncated[copy]) == (terminated, truncated)
            assert step.successes[copy] == bool(info.get("is_success", False))
            if not over[copy]:
                np.testing.assert_array_equal(step.next_inputs[copy], flat(observed))
            elif mode == "next_step":
                begins[copy] = True
            else:
                np.testing.assert_array_equal(step.next_inputs[copy], flat(one.reset()[0]))
            ends += over[copy]
    assert ends >= 9 and (idle_steps >= 9) == (mode == "next_step")
    environment.close()


def available(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}: pip install {library}")


@pytest.mark.parametrize(("name", "library"), [("points", "numpy"), ("points_torch", "torch"), ("points_jax", "jax")])
def test_an_actor_pushes_what_happened_with_arrays_of_any_library(name: str, library: str) -> None:
    available(library)
    task = sim(name)
    assert task.observation_keys == (("place", 1), ("speed", 1)) and not task.repeatable
    actor, shard, _ = actor_on([task], copies=3)
    while actor.iterations < 104:
        actor.step()
    rows = held(shard.storage.rings[0])
    drawn = (rows.flags & NOT_DRAWN) == 0
    following = rows.observations[np.flatnonzero(drawn) + 1]
    np.testing.assert_allclose(rows.rewards[drawn], 1.0 - np.abs(following[:, 0]), atol=1e-5)
    # An episode has 20 steps; with NEXT_STEP the 21st is a reset.
    per_copy = 104 - 104 // 21 if name == "points" else 104
    assert np.count_nonzero(drawn) == 3 * per_copy
    episodes = list(actor.ended)
    assert {episode.length for episode in episodes} == {20} and len(episodes) == 15


@pytest.mark.parametrize("mode", MODES)
def test_an_episode_with_bad_numbers_is_dropped_alone(mode: str) -> None:
    """A copy that cannot be reset by itself is idle until its episode has ended, and then goes on."""
    actor, shard, _ = actor_on([sim(f"breaking_{mode}")], copies=3)
    while actor.iterations < 104:
        actor.step()
    (bad,) = actor.bad
    assert (bad.copy, bad.what) == (1, "observation[0]")
    rows = held(shard.storage.rings[0])
    drawn = (rows.flags & NOT_DRAWN) == 0
    assert np.isfinite(rows.observations).all()
    following = rows.observations[np.flatnonzero(drawn) + 1]
    np.testing.assert_allclose(rows.rewards[drawn], 1.0 - np.abs(following[:, 0]), atol=1e-5)
    lengths = [episode.length for episode in actor.ended]
    assert set(lengths) == {20}
    assert len(lengths) == {"next_step": 14, "same_step": 14, "disabled": 14}[mode]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("modeless", "autoreset_mode None: set it to a gymnasium.vector.AutoresetMode"),
        ("endless", "max_episode_steps"),
        ("no_such_function", "cannot be made"),
    ],
)
def test_simulators_that_cannot_be_trained_on_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(UnknownNameError, match=reason):
        sim(name)


def test_a_simulator_that_forgets_last_observations_is_told() -> None:
    environment = VectorEnvironment(sim("forgetful"), [0, 1])
    environment.reset()
    for _ in range(19):
        environment.send(np.zeros((2, 1), np.float32))
        environment.recv()
    environment.send(np.zeros((2, 1), np.float32))
    with pytest.raises(BadEnvironment, match=r"without info\['final_obs'\]"):
        environment.recv()


@pytest.mark.parametrize("mode", MODES)
def test_success_is_that_of_the_step_and_not_of_a_reset(mode: str) -> None:
    """Resets of Lucky say that they succeed, and its steps do not."""
    environment = VectorEnvironment(sim(f"lucky_{mode}"), [0, 1])
    environment.reset()
    for _ in range(12):
        environment.send(np.zeros((2, 1), np.float32))
        step = environment.recv()
        assert not step.successes.any()


def test_a_step_in_which_all_copies_are_idle_counts_for_nothing(tmp_path: Path) -> None:
    """With NEXT_STEP, copies that end together are reset together. The scale of returns sees no such step."""
    learner = replace(tiny.config().learner, reward_normalizer="return-scale")
    made = run(config(tmp_path, "a", tasks=(SIMS + "points",), learner=learner, steps=400))
    assert made.shards[0].stats().inserts_by_task == [400]
    assert 0 < made.shards[0].storage.return_moments[0, 0] <= 400 + 64  # pushes are cut at the budget


def test_a_masked_reset_changes_no_other_copy() -> None:
    environment = VectorEnvironment(sim("sparing"), [0, 1])
    environment.reset()
    for _ in range(4):
        environment.send(np.zeros((2, 1), np.float32))
        step = environment.recv()
    assert step.truncated.tolist() == [True, False]
    np.testing.assert_array_equal(step.next_inputs[1], step.observations[1])
    assert step.next_inputs[1].any()


def test_one_simulator_is_made_at_a_time() -> None:
    assert sim("alone").action_size == 1


def test_a_distributed_run_learns_from_a_simulator(folder: Path) -> None:
    """The critic alone sees the speed, and the evaluator plays all of its episodes together."""
    options = ["--tasks", SIMS + "points", "--steps=1500", "--actors.copies=16", "--actors.privileged-keys", "speed"]
    done = tiny.train(folder, "a", *options, "--evaluation.episodes=4", "--replay.segment-length=8")
    assert done.returncode == 0, done.stdout + done.stderr
    last = tiny.rows(folder, "a", "eval")[-1]
    assert [*last["lengths"].values()] == [[20] * 4]
    assert json.dumps(last["returns"]).count("NaN") == 0
