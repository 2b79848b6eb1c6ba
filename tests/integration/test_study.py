"""`brc study` as a process: it goes on after a stop and a failure, and its page has every variant."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from cluster.study.study import load
from tests.support import tiny
from tests.support.live import wait_for_steps

OPTIONS: dict[str, Any] = {
    "tasks": ["dmc/cartpole-swingup"],
    "steps": 2500,
    "execution": "serial",
    "checkpoint-interval": 500,
    "report-interval": 0.2,
    "learner.width": 16,
    "learner.policy-width": 16,
    "learner.batch-size": 32,
    "learner.updates-per-step": 0.25,
    "learner.threads": 1,
    "learner.precision": "float32",
    "actors.copies": 2,
    "replay.warmup": 300,
    "evaluation.interval": 1000,
    "evaluation.episodes": 1,
}


def written(tmp_path: Path, variants: dict[str, Any], **changes: Any) -> Path:
    file = tmp_path / "mine.yaml"
    document = {"about": "a trial", "preset": "quickstart", "seeds": [0], "options": OPTIONS | changes}
    file.write_text(yaml.safe_dump(document | {"variants": variants}, sort_keys=False))
    return file


def study(file: Path, *words: str) -> subprocess.Popen[str]:
    command = tiny.command(["study", *words, str(file), "--runs-folder", str(file.parent / "runs"), "--at-once", "1"])
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("how", ["signal", "command"])
def test_a_stopped_study_goes_on_where_it_was(tmp_path: Path, how: str) -> None:
    file = written(tmp_path, {"brc": {}, "squared error": {"learner.loss": "mse"}})
    first = study(file)
    try:
        wait_for_steps(first, tmp_path, "mine-brc-0", 600)
        if how == "signal":
            first.send_signal(signal.SIGINT)
        else:
            assert study(file, "stop").wait(timeout=60) == 0
        said, _ = first.communicate(timeout=120)
    finally:
        first.kill()
    assert first.returncode == 130 and "mine-brc-0 was stopped" in said, said
    assert not (tmp_path / "runs" / "mine-squared-error-0").exists()
    second = study(file)
    said, _ = second.communicate(timeout=200)
    assert second.returncode == 0, said
    assert "2 runs, 0 done" in said and "mine-squared-error-0 is done" in said
    assert (tmp_path / "runs" / "mine-brc-0" / "events.jsonl").read_text().count('"resume"') == 1
    third = study(file)
    said, _ = third.communicate(timeout=60)
    assert third.returncode == 0 and "2 runs, 2 done" in said and "begins" not in said
    page = (tmp_path / "runs" / "studies" / "mine" / "report.html").read_text()
    assert "a trial" in page and "better than the first" in page and "squared error" in page
    told, _ = study(file, "status").communicate(timeout=60)
    assert "2 done" in told and "nothing drives it now" in told


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    file = written(tmp_path, {"brc": {}}, **{"checkpoint-interval": 100_000})
    first = study(file)
    try:
        wait_for_steps(first, tmp_path, "mine-brc-0", 800)
        for child in psutil.Process(first.pid).children():
            child.kill()
        said, _ = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 1 and "failed with exit code -9" in said and "not done: mine-brc-0" in said
    second = study(file)
    said, _ = second.communicate(timeout=200)
    assert second.returncode == 0, said
    more = study(written(tmp_path, {"brc": {}}, steps=2800, **{"checkpoint-interval": 100_000}))
    said, _ = more.communicate(timeout=200)
    assert more.returncode == 0 and "mine-brc-0 begins" in said, said
    assert tiny.rows(tmp_path, "mine-brc-0", "metrics")[-1]["env_steps"] == 2800


def test_words_that_name_no_study_are_one_sentence(tmp_path: Path) -> None:
    file = written(tmp_path, {"brc": {}})
    for words in (["list"], ["status", "another"], ["stop"]):
        done = study(file, *words)
        said, _ = done.communicate(timeout=60)
        assert done.returncode == 2 and said.startswith("brc: ") and len(said.splitlines()) == 1, said
    assert not (tmp_path / "runs").exists()


def test_a_failed_run_does_not_keep_the_others_from_being_trained(tmp_path: Path) -> None:
    fails = {"tasks": ["gymnasium/tests.support.odd_envs_actions:Tires"]}
    variants = {"fails": fails, "behind it": {"from": "fails"}, "brc": {}}
    file = written(tmp_path, variants, steps=600)
    done = study(file)
    said, _ = done.communicate(timeout=200)
    assert done.returncode == 1, said
    assert "mine-fails-0 failed with exit code 2" in said and "mine-brc-0 is done" in said
    assert "mine-behind-it-0 cannot begin: mine-fails-0 is not done" in said
    log = (tmp_path / "runs" / "studies" / "mine" / "mine-fails-0.log").read_text()
    assert "tired" in log


def test_an_agent_for_each_task_is_one_curve_and_transfer_waits(tmp_path: Path) -> None:
    tasks = ["dmc/cartpole-swingup", "dmc/cartpole-balance"]
    variants = {
        "together": {"tasks": tasks},
        "alone": {"alone": True, "tasks": tasks},
        "transfer": {"from": "together", "tasks": ["dmc/acrobot-swingup"]},
    }
    file = written(tmp_path, variants, steps=700, **{"evaluation.interval": 300})
    done = study(file)
    said, _ = done.communicate(timeout=280)
    assert done.returncode == 0, said
    names = [member.name for member in load(file).members(str(tmp_path / "runs"))]
    assert len(names) == 4 and all(f"{name} is done" in said for name in names)
    page = (tmp_path / "runs" / "studies" / "mine" / "report.html").read_text()
    assert "mine-alone-0" in page and "mine-alone-dmc-cartpole-balance-0" not in page
