"""Tests of serial runs that resume exactly if environments draw from the usual generators; others are reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.backends.gymnasium import is_led_back
from actors.backends.recorded import RecordedEnvironment
from actors.benchmarks.catalogue import resolve
from actors.environments import make_environment
from cluster.errors import ConfigError
from cluster.preflight.validation import validate
from cluster.preflight.way_back import strays
from cluster.serial import to_numpy, to_torch
from dashboards.sinks import records
from tests.integration.test_serial import StopAt, assert_identical, config, run
from tests.support import odd_envs_actions, tiny

SAVED = ["np_random", "numpy", "python", "attribute", "pcg", "spawned"]


def name(source: str) -> str:
    return f"gymnasium/tests.support.odd_envs_actions:Draws_{source}-v0"


@pytest.mark.parametrize("source", SAVED)
def test_copies_are_led_back_and_draw_on_as_they_would_have(source: str) -> None:
    """The copies have made several episodes and are in the middle of one. Both may draw from the same generator."""
    (task,) = resolve([name(source)])
    assert is_led_back(task, 0)
    environment = RecordedEnvironment(make_environment("", task, [1, 2], exact=True))
    environment.reset()
    rng = np.random.default_rng(0)
    for _ in range(31):
        environment.send(rng.uniform(-1, 1, (2, 2)).astype(np.float32))
        inputs = environment.recv().next_inputs
    saved = to_numpy(to_torch(environment.state()))
    np.random.seed(9)
    fresh = RecordedEnvironment(make_environment("", task, [1, 2], exact=True), saved)
    np.testing.assert_array_equal(fresh.reset(), inputs)
    for _ in range(31):
        actions = rng.uniform(-1, 1, (2, 2)).astype(np.float32)
        steps = []
        for one in (environment, fresh):
            one.send(actions)
            steps.append(one.recv())
        np.testing.assert_array_equal(steps[0].observations, steps[1].observations)
        np.testing.assert_array_equal(steps[0].next_inputs, steps[1].next_inputs)


@pytest.mark.parametrize("to", ["itself", "back", "slots", "words", "code"])
def test_what_an_environment_calls_env_may_be_anything(to: str) -> None:
    (task,) = resolve([f"gymnasium/tests.support.odd_envs_actions:Leads_{to}-v0"])
    assert is_led_back(task, 0)


@pytest.mark.parametrize(
    ("kind", "said"), [("Tires", "cannot be stepped: RuntimeError: it is tired"), ("Leaves", r"called sys.exit\(7\)")]
)
def test_what_cannot_be_stepped_is_refused_and_closed(monkeypatch: pytest.MonkeyPatch, kind: str, said: str) -> None:
    """A task that would end the process, and a task whose `close` fails, are refused and closed too."""
    monkeypatch.setattr(odd_envs_actions.Tires, "closed", 0)
    plan = validate(tiny.config(tasks=(f"gymnasium/tests.support.odd_envs_actions:{kind}-v0",), execution="serial"))
    before = odd_envs_actions.Tires.closed
    with pytest.raises(ConfigError, match=rf"^--tasks: gymnasium/tests.support.odd_envs_actions:{kind}-v0\b.*{said}$"):
        strays(plan)
    assert odd_envs_actions.Tires.closed == before + 2


def test_environments_that_leave_for_nowhere_or_cannot_be_closed_are_trained_on(tmp_path: Path) -> None:
    tasks = [f"gymnasium/tests.support.odd_envs_actions:{kind}-v0" for kind in ("Homeless", "Clings")]
    done = tiny.train(
        tmp_path, "a", "--tasks", *tasks, "--execution=serial", "--steps=400", "--checkpoint-interval=200"
    )
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    events = {row["event"] for row in tiny.rows(tmp_path, "a", "events")}
    assert "evaluation_lost" not in events and (tmp_path / "runs" / "a" / "report.html").exists()
    for words in (["eval", "a", "--episodes=1"], ["export", "a"]):
        done = tiny.run(*words, f"--runs-folder={tmp_path}/runs")
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_resumed_serial_run_is_identical_where_steps_draw(tmp_path: Path) -> None:
    tasks = tuple(name(source) for source in SAVED)
    changes = {"tasks": tasks, "steps": 500, "evaluation": replace(tiny.config().evaluation, interval=200)}
    unbroken = run(config(tmp_path, "unbroken", **changes))
    run(config(tmp_path, "broken", **changes), StopAt(410))
    assert_identical(unbroken, run(config(tmp_path, "broken", resume=True, **changes)))
    scores = [records.read(tmp_path / each / "eval.jsonl")[-1] for each in ("unbroken", "broken")]
    for field in ("updates", "returns", "lengths"):
        assert scores[0][field] == scores[1][field]


def test_what_cannot_be_led_back_is_told_before_a_run_depends_on_it(tmp_path: Path) -> None:
    options = (f"--tasks={name('hidden')}", "--execution=serial")
    done = tiny.train(tmp_path, "a", *options, "--steps=400")
    told = "can only be resumed with --execution distributed"
    assert done.returncode == 0 and done.stdout.index(told) < done.stdout.index("run a:"), done.stdout + done.stderr
    again = tiny.train(tmp_path, "a", *options, "--steps=500", "--resume")
    assert again.returncode == 2 and "go on with --execution distributed" in again.stderr, again.stdout + again.stderr


def test_what_strays_later_is_told_with_the_one_way_on(tmp_path: Path) -> None:
    options = (f"--tasks={name('late')}", "--execution=serial")
    done = tiny.train(tmp_path, "a", *options, "--steps=400")
    assert done.returncode == 0, done.stdout + done.stderr
    again = tiny.train(tmp_path, "a", *options, "--steps=500", "--resume")
    assert again.returncode == 1 and "did not lead back to the saved observation" in again.stdout, again.stdout
    assert f"brc resume a --runs-folder {tmp_path}/runs --execution distributed" in again.stdout
    assert "(and the options" not in again.stdout
