"""Tests of privileged observations: replay keeps them once, the critic sees them, and policies and actors do not."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.benchmarks.catalogue import resolve
from actors.environments import make_environment
from cluster.config.schema import ActorsConfig
from cluster.errors import ConfigError
from cluster.preflight.origin import check_origin, successor
from cluster.preflight.validation import validate
from learner.learner import Learner
from learner.networks.architectures import ARCHITECTURES
from learner.networks.spec import NetworkSpec
from learner.scale.memory import footprint
from learner.spec import RANDOM, Origin
from learner.state.transfer import begin_from
from replay.store.rows import Push
from tests.integration.test_serial import StopAt, assert_identical, config, parameters, run
from tests.support import golden_vectors as golden
from tests.support import tiny
from tests.support.live import PATIENCE_S, assert_whole, ended_well, live, wait_for_steps
from tests.support.specs import learner_spec
from tests.support.streams import segments, spec, storage
from tests.unit.test_learner import save

GO1 = "playground/Go1JoystickFlatTerrain"
MIXED = ("dmc/cartpole-swingup", "gymnasium/tests.support.counting:Counting-v0")
ACTORS = ActorsConfig(count=1, copies=2, privileged_keys=("seed",))
NETWORKS = NetworkSpec(observation_size=5, privileged_size=3, action_size=2, num_tasks=3, width=16, policy_width=16)


def test_a_task_of_playground_shows_the_library_s_two_states() -> None:
    (task,) = resolve([GO1])
    assert (task.observation_size, task.privileged_size, task.observation_shape) == (48, 123, (171,))
    both, alone = make_environment("envpool", task, [3]), make_environment("envpool", task.unprivileged(), [3])
    np.testing.assert_array_equal(both.reset()[:, :48], alone.reset())


def test_batches_have_privileged_numbers_of_all_tasks_in_the_same_columns() -> None:
    """Rows hold their numbers without a gap; in batches these are behind the widest policy's observation."""
    of = spec(observation_shapes=((4,), (3,)), privileged=(1, 0))
    assert of.widest == (4,)
    of = spec(observation_shapes=((4,), (5,)), privileged=(3, 2))
    made = storage(of)
    for task, (size,) in enumerate(of.observation_shapes):
        rows = segments(1, [6], size)
        rows.observations[...] = 10 * (task + 1) + np.arange(size)
        made.append(Push({task: rows}, {}))
    found = made.sample(2, 16, threading.Lock())
    assert found.observations.shape == (2, 16, 6)
    expected = np.array([[10, 0, 0, 11, 12, 13], [20, 21, 22, 23, 24, 0]], np.float32)
    for seen in (found.observations, found.next_observations):
        np.testing.assert_array_equal(seen, expected[found.task_ids])


@pytest.mark.parametrize("network", ARCHITECTURES)
@pytest.mark.parametrize("normalized", [False, True], ids=["", "normalised"])
def test_the_critic_sees_them_and_the_policy_does_not(network: str, normalized: bool) -> None:
    networks = replace(NETWORKS, network=network, normalize_observations=normalized)
    learner = Learner(learner_spec(networks, batch_size=8))
    state = golden.continuous(learner)
    observations, actions = torch.randn(8, 8), torch.rand(8, 2)
    others = torch.cat([observations[:, :5], torch.randn(8, 3)], dim=1)
    embedding = state.critic.embed(torch.arange(8) % 3)
    for module in (*state.critic.norms, *state.policy.norms):
        module.statistics = "running"
    for one, other in zip(state.policy(observations, embedding), state.policy(others, embedding), strict=True):
        assert torch.equal(one, other)
    assert not torch.allclose(state.critic(observations, actions, embedding), state.critic(others, actions, embedding))
    shapes = dict(learner.policy().layout)
    assert not any(8 in shape for name, shape in shapes.items() if "norm" not in name), "nothing so wide is published"


def test_memory_is_reckoned_with_them() -> None:
    def bytes_of(networks: NetworkSpec, purpose: str) -> int:
        return footprint(networks, 256, 4, "float32", 1, "replicate", 1, "cpu")[purpose]

    without, wide = replace(NETWORKS, privileged_size=0), replace(NETWORKS, privileged_size=1000)
    for purpose in ("critic", "batches"):
        assert bytes_of(wide, purpose) > bytes_of(NETWORKS, purpose) > bytes_of(without, purpose)
    assert bytes_of(wide, "policy") == bytes_of(without, "policy")


@pytest.mark.parametrize("normalized", [False, True], ids=["", "normalised"])
def test_an_agent_that_saw_none_or_fewer_begins_alike(tmp_path: Path, normalized: bool) -> None:
    old = replace(NETWORKS, privileged_size=2, normalize_observations=normalized)
    new = replace(old, observation_size=6, privileged_size=4, action_size=3)
    one, other = Learner(learner_spec(old)), Learner(learner_spec(new, seed=5))
    for norm in one.observed:
        norm.observe(torch.randn(len(norm.mean)), torch.rand(len(norm.mean)) + 0.5, 100)
    save(one, tmp_path)
    begin_from(other, Origin(str(tmp_path), old, (0, 1, RANDOM), (0, 1, RANDOM)))
    shared, privileged, actions = torch.randn(4, 5), torch.randn(4, 2), torch.rand(4, 2)
    more = torch.cat([shared, torch.zeros(4, 1), privileged, torch.zeros(4, 2)], dim=1)
    tasks = torch.tensor([0, 1, 0, 1])
    for name in ("critic", "target"):
        theirs, ours = golden.critics(one)[name], golden.critics(other)[name]
        torch.testing.assert_close(
            ours(more, torch.cat([actions, torch.zeros(4, 1)], dim=1), ours.embed(tasks)),
            theirs(torch.cat([shared, privileged], dim=1), actions, theirs.embed(tasks)),
            rtol=1e-4,
            atol=1e-4,
        )
    mine, known = golden.continuous(other), golden.continuous(one)
    expected = known.policy(torch.cat([shared, privileged], dim=1), known.critic.embed(tasks))[0]
    torch.testing.assert_close(mine.policy(more, mine.critic.embed(tasks))[0][:, :2], expected, rtol=1e-4, atol=1e-4)


def test_a_mixed_run_is_resumed_exactly(tmp_path: Path) -> None:
    """A task without privileged observations, and a Dict of gymnasium of which the critic alone sees a part."""
    changes = {"tasks": MIXED, "actors": ACTORS, "steps": 700}
    unbroken = run(config(tmp_path, "unbroken", **changes))
    networks = unbroken.plan.networks
    assert (networks.observation_size, networks.privileged_size) == (5, 4)
    assert unbroken.plan.tasks[1].observation_keys == (("steps", 1), ("seed", 4))
    run(config(tmp_path, "broken", **changes), StopAt(450))
    assert_identical(unbroken, run(config(tmp_path, "broken", **changes, resume=True)))
    without = replace(tiny.config().learner, privileged=False)
    blind = run(config(tmp_path, "blind", **changes, learner=without))
    assert blind.plan.networks.privileged_size == 0
    assert all(tensor.isfinite().all() for tensor in parameters(blind).values())


def test_a_distributed_run_of_two_benchmarks_is_killed_and_resumed(folder: Path) -> None:
    options = ["--tasks", GO1, "dmc/cartpole-swingup", "--steps=2500", "--actors.of", "dmc.action-repeat", "2"]
    with live(folder, "a", *options) as process:
        wait_for_steps(process, folder, "a", 1000)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, output
    with live(folder, "a", *options, "--resume") as process:
        ended_well(process)
    assert_whole(folder, "a", 2500, tasks=2)
    runs = f"--runs-folder={folder}/runs"
    tiny.succeed(tiny.command(["export", "a", runs, f"--folder={folder}/policy"]))
    about = json.loads((folder / "policy" / "policy.json").read_text())
    assert about["observation_size"] == 48
    assert [(task["observation_size"], task["action_repeat"]) for task in about["tasks"]] == [(48, 1), (5, 2)]
    assert [part["key"] for part in about["tasks"][0]["observation"]] == ["state"]


def test_a_run_keeps_what_its_critic_sees(tmp_path: Path) -> None:
    tasks = MIXED[1:]
    run(config(tmp_path, "a", tasks=tasks, actors=ACTORS, steps=400))
    blind = replace(tiny.config().learner, privileged=False)
    with pytest.raises(Exception, match=r"learner\.privileged"):
        run(config(tmp_path, "a", tasks=tasks, actors=ACTORS, steps=500, resume=True, learner=blind))


def test_add_task_keeps_what_each_task_shows_to_whom(tmp_path: Path) -> None:
    """Weights are taken over by the places of inputs, so a task of both runs must show the same to the same."""
    counting = MIXED[1:]
    run(config(tmp_path, "a", tasks=counting, actors=ACTORS, steps=400))
    _, config_ = successor(tmp_path / "a", ("dmc/cartpole-swingup",), keep=True)
    assert config_.actors.privileged_keys == ("seed",)
    check_origin(validate(config_))
    for changes, said in (
        ({"privileged_keys": ("steps",)}, "privileged-keys of .*Counting"),
        ({"privileged_keys": ()}, "privileged-keys of .*Counting"),
        ({"action_repeat": 2}, "action-repeat of .*Counting.* is 2, and in the origin .* 1"),
    ):
        other = replace(config_, actors=replace(config_.actors, **changes))
        with pytest.raises(ConfigError, match=said):
            check_origin(validate(other))
    _, alone = successor(tmp_path / "a", ("dmc/cartpole-swingup",), keep=False)
    assert alone.actors.privileged_keys == (), "a key that no task has is not carried over"
    check_origin(validate(alone))


def test_a_serial_run_whose_steps_draw_is_told_the_one_way_on(tmp_path: Path) -> None:
    done = tiny.train(tmp_path, "a", f"--tasks={GO1}", "--execution=serial", "--steps=400")
    assert done.returncode == 0 and "can only be resumed with --execution distributed" in done.stdout, done.stdout


def test_the_plan_asks_for_room_for_both(tmp_path: Path) -> None:
    plan = validate(config(tmp_path, "a", tasks=(GO1, "dmc/cartpole-swingup")))
    of = plan.shards[0].storage
    assert (of.observation_shapes, of.privileged, of.widest) == (((171,), (5,)), (123, 0), (171,))
