"""Tests of real runs: evaluators hang, raise and are killed; stops while a process hangs; what failed runs save."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import tiny
from tests.support.live import (
    PATIENCE_S,
    assert_whole,
    ended_well,
    events,
    live,
    ray_process,
    wait_for,
    wait_for_steps,
)

TASK = "--tasks=gymnasium/tests.support.odd_envs_evaluator:Faulty-v0"
MINUTE_S = 75.0  # a stop must end the run within this time, even on a busy machine


@pytest.fixture
def faults(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder whose files say which faults occur."""
    path = folder / "faults"
    path.mkdir()
    monkeypatch.setenv("FAULTS", str(path))
    return path


def stopped(process: subprocess.Popen[str], code: int = 130) -> str:
    """Send one Ctrl-C to the run, which must end within MINUTE_S. Return its output."""
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=MINUTE_S)
    assert process.returncode == code, said
    return said


def state(folder: Path) -> str:
    return tiny.run("status", "a", f"--runs-folder={folder}/runs").stdout


def test_whatever_happens_to_evaluators_no_evaluation_is_lost(folder: Path, faults: Path) -> None:
    """Evaluators raise, hang and are killed, and actor and learner die too. No evaluation fails three times: the random
    policy's fails at the first two faults, and its result is written before the other faults begin."""
    (faults / "once-step-Evaluator").touch()
    (faults / "hang-step-Evaluator").touch()
    options = ("--steps=12000", "--evaluation.interval=4000", "--checkpoint-interval=1000", "--actors.deadline=5")
    with live(folder, "a", TASK, *options) as process:
        wait_for(process, lambda: len(events(folder, "a", "evaluator_died")) > 1)
        (faults / "hang-step-Evaluator").unlink()
        wait_for(process, lambda: tiny.rows(folder, "a", "eval"))
        wait_for_steps(process, folder, "a", 500)
        ray_process(process, "ActorProcess").kill()
        ray_process(process, "LearnerProcess").kill()
        wait_for(process, lambda: events(folder, "a", "learner_restarted"))
        (faults / "once-step-Evaluator").touch()
        ray_process(process, "Evaluator").kill()
        ended_well(process)
    reasons = [event["reason"] for event in events(folder, "a", "evaluator_died")]
    assert "ZeroDivisionError" in reasons[0] and "it has not made a step for" in reasons[1]
    assert len(reasons) > 2
    assert not events(folder, "a", "evaluation_lost")
    assert_whole(folder, "a", 12000)
    assert [row["env_steps"] // 1000 for row in tiny.rows(folder, "a", "eval")] == [0, 4, 8, 12]


def test_a_run_goes_on_without_evaluations_that_always_fail(folder: Path, faults: Path) -> None:
    """The random policy's and the last evaluation fail three times each and are lost. A resume makes the last."""
    (faults / "raise-step-Evaluator").touch()
    with live(folder, "a", TASK, "--steps=1000") as process:
        said = ended_well(process)
    assert [event["env_steps"] for event in events(folder, "a", "evaluation_lost")] == [0, 1000]
    assert len(events(folder, "a", "evaluator_died")) == 6
    assert "it was lost 3 times, at last: ZeroDivisionError: the simulator lost its connection" in said
    assert (
        "no evaluation was made" in said and "the evaluations at 0 and 1,000 steps are missing: it was lost 3" in said
    )
    assert tiny.manifest(folder, "a")["env_steps"] == 1000 and not tiny.rows(folder, "a", "eval")
    (faults / "raise-step-Evaluator").unlink()
    with live(folder, "a", TASK, "--steps=1000", "--resume") as process:
        ended_well(process)
    assert_whole(folder, "a", 1000)


def test_evaluations_that_take_longer_than_their_interval_do_not_gather(folder: Path, faults: Path) -> None:
    """The last evaluation of the run is made, however many others wait."""
    (faults / "hang-step-Evaluator").touch()
    options = ("--steps=3000", "--evaluation.interval=200", "--actors.deadline=60")
    with live(folder, "a", TASK, *options) as process:
        wait_for(process, lambda: events(folder, "a", "evaluation_lost"))
        (faults / "hang-step-Evaluator").unlink()
        said = ended_well(process)
    lost = {event["env_steps"]: event["reason"] for event in events(folder, "a", "evaluation_lost")}
    assert set(lost.values()) == {"3 before it are not made yet: raise --evaluation.interval"}
    made = [row["env_steps"] for row in tiny.rows(folder, "a", "eval")]
    assert (made[0], made[-1]) == (0, 3000) and not lost.keys() & set(made)
    assert said.count("missing: 3 before it") == 1


@pytest.mark.parametrize("fault", ["hang-made-ActorProcess", "hang-made-Evaluator", "hang-step-Evaluator"])
def test_a_stop_is_obeyed_while_something_hangs(folder: Path, faults: Path, fault: str) -> None:
    (faults / fault).touch()
    with live(folder, "a", TASK, "--steps=100000") as process:
        if "Actor" in fault:
            wait_for(process, lambda: events(folder, "a", "learner_ready"))
        else:
            wait_for_steps(process, folder, "a", 500)
        wait_for(process, (folder / "hung").exists)
        stopped(process)
    assert "a: stopped" in state(folder)
    if "Actor" not in fault:
        assert tiny.manifest(folder, "a")["env_steps"] >= 500
        assert [event["reason"] for event in events(folder, "a", "evaluation_lost")] == ["the run was stopped"]


def test_a_stop_is_obeyed_in_the_last_evaluation_which_a_resume_makes(folder: Path, faults: Path) -> None:
    with live(folder, "a", TASK, "--steps=600") as process:
        wait_for_steps(process, folder, "a", 1)
        wait_for(process, lambda: tiny.rows(folder, "a", "eval"))
        (faults / "hang-step-Evaluator").touch()
        wait_for(process, lambda: events(folder, "a", "checkpoint") and (folder / "hung").exists())
        said = stopped(process)
    assert "brc resume" in said
    (faults / "hang-step-Evaluator").unlink()
    with live(folder, "a", TASK, "--steps=600", "--resume") as process:
        ended_well(process)
    assert_whole(folder, "a", 600)


@pytest.mark.parametrize("kind", ["ShardProcess", "LearnerProcess"])
def test_a_stop_is_obeyed_while_a_part_does_not_answer(folder: Path, kind: str) -> None:
    """The run reports that it could not write its last checkpoint, and keeps the one before."""
    with live(folder, "a", "--steps=100000", "--checkpoint-interval=500") as process:
        wait_for(process, lambda: events(folder, "a", "checkpoint"))
        ray_process(process, kind).send_signal(signal.SIGSTOP)
        said = stopped(process, code=1)
    assert "its last checkpoint could not be written" in said and "brc resume" in said
    assert tiny.manifest(folder, "a")["env_steps"] >= 500


def test_a_stop_is_obeyed_by_a_learner_whose_requests_take_minutes(folder: Path) -> None:
    """The last checkpoint holds the updates of an unfinished request that were made so far."""
    options = ("--learner.width=1024", "--learner.batch-size=1024", "--learner.batches-per-request=128")
    with live(folder, "a", *options, "--steps=100000", "--learner.updates-per-step=10") as process:
        wait_for(process, lambda: any(row["updates"] for row in tiny.rows(folder, "a", "metrics")))
        stopped(process)
    assert 1 <= tiny.manifest(folder, "a")["updates"] < 128
    again = ("--steps=100000", "--resume")
    with live(folder, "a", *options, *again, "--learner.updates-per-step=10") as process:
        wait_for(process, lambda: events(folder, "a", "learner_ready")[1:])
        stopped(process)


def test_a_run_that_an_actor_ends_has_a_last_checkpoint(folder: Path, faults: Path) -> None:
    with live(folder, "a", TASK, "--steps=100000") as process:
        wait_for_steps(process, folder, "a", 800)
        (faults / "raise-step-ActorProcess").touch()
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1 and "died 3 times" in said
    assert "a last checkpoint was written" in said and "brc resume" in said
    saved = tiny.manifest(folder, "a")["env_steps"]
    assert saved >= 800
    (faults / "raise-step-ActorProcess").unlink()
    with live(folder, "a", TASK, f"--steps={saved + 200}", "--resume") as process:
        ended_well(process)
    assert_whole(folder, "a", saved + 200)
