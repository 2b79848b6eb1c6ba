"""Tests of actors of several benchmarks: their tasks, scaling during a run, and replacement of failed actors."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.causes import Cause
from actors.deaths import MOST_DEATHS_IN_A_ROW
from actors.process import complete
from cluster.config.schema import ActorsConfig, Config
from cluster.errors import ConfigError
from cluster.plan.plan import make_plan
from cluster.plan.runtime import runtime
from cluster.preflight.machine import Machine
from cluster.preflight.validation import check
from cluster.supervise import balance
from tests.support import tiny
from tests.support.live import assert_whole, ended_well, events, live, wait_for

PARTS = ActorsConfig(count=2, copies=3, of={"dmc.copies": 2.0, "dmc.cpus": 0.5})
MIXED = Config(tasks=("quickstart-mixed",), actors=PARTS)


def test_every_benchmark_has_actors_of_its_own() -> None:
    plan = make_plan(MIXED)
    assert plan.benchmarks == ("metaworld", "dmc") and plan.counts() == {"metaworld": 2, "dmc": 2}
    assert plan.actor_cpus == 3.0
    specs = [plan.actor(what) for what in plan.assignments(plan.counts())]
    assert [spec.name for spec in specs] == ["metaworld-0", "metaworld-1", "dmc-0", "dmc-1"]
    assert [spec.copies for spec in specs] == [3, 3, 2, 2]
    assert [[task for task, _ in spec.tasks] for spec in specs] == [[0, 2], [1], [3], [4]]
    assert {spec.action_size for spec in specs} == {6} and {spec.observation_size for spec in specs} == {39}


def test_the_learner_leaves_the_actors_their_share_of_a_gpu() -> None:
    config = replace(MIXED, actors=replace(PARTS, of={"dmc.gpus": 0.2}))
    assert (make_plan(config).actor_gpus, make_plan(config).rank_gpus) == (0.4, 0.6)
    assert check(config, Machine("a machine", 1)).rank_gpus == 0.6
    assert make_plan(MIXED).rank_gpus == 1.0
    many = replace(config, actors=replace(PARTS, of={"dmc.gpus": 0.5}))
    with pytest.raises(ConfigError, match=r"ask for 1 GPUs together, and a machine has 1, of which 0\.9 are left"):
        check(many, Machine("a machine", 1))
    assert check(many, Machine("a machine", 2)).actor_gpus == 1.0


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_task_is_served_alike_and_no_two_copies_share_a_seed(metaworld: int, dmc: int) -> None:
    plan = make_plan(replace(MIXED, tasks=("metaworld-50", "dmc-dogs")))
    assignments = plan.assignments({"metaworld": metaworld, "dmc": dmc})
    for benchmark, count in (("metaworld", metaworld), ("dmc", dmc)):
        tasks = [index for index, task in enumerate(plan.tasks) if task.benchmark == benchmark]
        served = [task for what in assignments if what.benchmark == benchmark for task in what.tasks]
        times = [served.count(task) for task in tasks]
        assert min(times) >= 1 and max(times) - min(times) <= 1 and len(served) == max(count, len(tasks))
    copies: list[int] = []
    for what in assignments:
        spec = plan.actor(what)
        copies += range(spec.first_copy, spec.first_copy + len(spec.tasks) * spec.copies)
    assert len(set(copies)) == len(copies) and max(copies) < 1 << 20
    assert len({plan.actor(what).index for what in assignments}) == len(assignments)


COSTS = st.fixed_dictionaries(
    {"dmc": st.floats(1e-4, 1.0), "metaworld": st.floats(1e-4, 1.0), "atari": st.floats(1e-4, 1.0)}
)
NUMBERS = st.fixed_dictionaries(dict.fromkeys(("dmc", "metaworld", "atari"), st.integers(1, 40)))


@given(
    NUMBERS,
    NUMBERS,
    COSTS,
    st.fixed_dictionaries(dict.fromkeys(("dmc", "metaworld", "atari"), st.sampled_from([0.0, 0.5, 1.0, 2.0]))),
)
def test_balancing_speeds_up_the_slowest_task_or_leaves_all_as_it_is(
    counts: dict[str, int], tasks: dict[str, int], seconds: dict[str, float], cpus: dict[str, float]
) -> None:
    def slowest(of: dict[str, int]) -> float:
        return min(balance.speed(of[name], tasks[name], seconds[name]) for name in of)

    found = balance.balanced(counts, tasks, seconds, cpus, dict.fromkeys(counts, 60))
    assert found == counts or slowest(found) > balance.LEAST_GAIN * slowest(counts)
    assert min(found.values()) >= 1 and (found == counts or max(found.values()) <= 60)
    takes = {name: value or 1.0 for name, value in cpus.items()}
    assert sum(found[name] * takes[name] for name in found) <= sum(counts[name] * takes[name] for name in counts) + 1e-9


def test_actors_go_where_all_wait_until_nothing_is_gained() -> None:
    """A benchmark whose steps take nine times as long ends with nine times the actors."""
    counts, none = {"slow": 5, "fast": 5}, {"slow": 1, "fast": 1}
    for _ in range(20):
        counts = balance.balanced(counts, none, {"slow": 0.09, "fast": 0.01}, none, {"slow": 9, "fast": 9})
    assert counts == {"slow": 9, "fast": 1}


@pytest.mark.long
def test_a_run_moves_actors_to_the_slow_benchmark(folder: Path) -> None:
    tasks = ("--tasks", "gymnasium/tests.support.counting:slow-v0", "dmc/cartpole-swingup", "--steps=4000")
    options = ("--actors.balance=auto", "--actors.count=3", "--actors.cpus=0.2", "--learner.updates-per-step=0.1")
    with live(folder, "a", *tasks, *options) as process:
        moved = wait_for(process, lambda: events(folder, "a", "scaled"))
        assert moved[0]["actors"]["gymnasium"] > 3 > moved[0]["actors"]["dmc"]
        assert sum(moved[0]["actors"].values()) == 6


THREE = ("dmc/cartpole-swingup", "dmc/cartpole-balance", "dmc/pendulum-swingup")


def scale(folder: Path, *counts: str) -> str:
    command = tiny.command(["scale", "a", *counts, f"--runs-folder={folder}/runs"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def newest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tiny.rows(folder, "a", "metrics")[-1]["actors_by_benchmark"]["dmc"]
    return found


def test_actors_come_and_go_while_the_run_goes_on(folder: Path) -> None:
    """Actors that do not fit wait for room, and the earlier actors go on with tasks that have no other actor yet.
    Replay loses no transition and takes none twice, and the ratio of samples to inserts holds."""
    with live(folder, "a", "--steps=14000", "--tasks", *THREE, "--actors.cpus=1") as process:
        wait_for(process, lambda: [row for row in tiny.rows(folder, "a", "metrics") if row["updates"] > 10])
        assert "dmc: 2 of 2 actors collect" in scale(folder, "dmc=2")
        assert "1 of 1" in scale(folder, "dmc=1")
        said = scale(folder, "dmc=9", "--timeout=4")
        assert "of 9 actors" in said and "pending" in said
        pending = wait_for(process, lambda: newest(folder)["pending"] or None)
        assert pending + newest(folder)["alive"] == 9
        steps = tiny.rows(folder, "a", "metrics")[-1]["env_steps"]
        wait_for(process, lambda: tiny.rows(folder, "a", "metrics")[-1]["env_steps"] > steps + 100)
        assert "1 of 1" in scale(folder, "dmc=1")
        ended_well(process)
    assert [event["actors"]["dmc"] for event in events(folder, "a", "scaled")] == [2, 1, 9, 1]
    assert not events(folder, "a", "actor_died")
    assert_whole(folder, "a", 14000, tasks=3)


@pytest.mark.parametrize(
    ("fault", "option", "cause", "reason"),
    [
        pytest.param("raises", "--actors.deadline=60", Cause.RAISED, "ZeroDivisionError: the environment"),
        pytest.param("hangs", "--actors.deadline=3", Cause.HUNG, "it has not made a step for"),
        pytest.param("leaks", "--actors.memory=0.8", Cause.OUT_OF_MEMORY, "it has grown to"),
    ],
)
@pytest.mark.long
def test_an_actor_of_no_more_use_is_replaced_and_says_why(
    folder: Path, fault: str, option: str, cause: Cause, reason: str
) -> None:
    """The failed actor does not affect the other benchmark of the run, or the evaluators of both."""
    tasks = ("--tasks", f"gymnasium/tests.support.counting:{fault}-v0", "dmc/cartpole-swingup")
    with live(folder, "a", *tasks, "--steps=1500", option) as process:
        died = wait_for(process, lambda: events(folder, "a", "actor_died"))[0]
        assert died["actor"] == "gymnasium-0" and died["cause"] == cause and reason in died["reason"]
        wait_for(process, lambda: [e for e in events(folder, "a", "actor_started") if e["incarnation"] == 1])
        ended_well(process)
    assert_whole(folder, "a", 1500, tasks=2)
    assert json.loads((folder / "runs" / "a" / "registry" / "desired").read_text()) == {"gymnasium": 1, "dmc": 1}


@pytest.mark.long  # Ray notices a lost node after 15 seconds
def test_deaths_with_a_node_do_not_count(folder: Path) -> None:
    """Deaths with a node do not count, even for an actor that has nothing for replay yet. When the actor dies three
    times by itself, the fleet gives up."""
    tiny.script("lose_nodes", folder)
    with_node, by_itself, raised = json.loads((folder / "told.json").read_text())
    assert with_node == [Cause.NODE_LOST] * MOST_DEATHS_IN_A_ROW
    assert by_itself == [Cause.DIED] * (MOST_DEATHS_IN_A_ROW - 1)
    assert raised.startswith(f"actor dmc-0 died {MOST_DEATHS_IN_A_ROW} times without anything for replay in between")


def test_a_benchmark_may_have_packages_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "packages.yaml"
    actors = ActorsConfig(runtime={"dmc": str(file)})
    assert runtime(actors, "metaworld") == {}
    file.write_text("pip: [mujoco==3.1.6]\nenv_vars: {MUJOCO_GL: egl}\n")
    made = complete(runtime(actors, "dmc"))
    assert made["pip"] == ["mujoco==3.1.6"]
    assert (made["env_vars"]["MUJOCO_GL"], made["env_vars"]["OMP_NUM_THREADS"]) == ("egl", "1")
    for text, sentence in (
        ("- pip", "it holds list"),
        ("pipp: []", "has the field 'pipp'"),
        ("a: [", "cannot be read"),
        ("env_vars: 3", "not names"),
        ("{pip: [], conda: x}", "may have one"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=sentence):
            runtime(actors, "dmc")
    # The project's own file of packages.
    packages = {"dmc": "actors/humanoid_bench.yaml"}
    assert runtime(ActorsConfig(runtime=packages), "dmc")["pip"] == ["mujoco==3.1.6"]
