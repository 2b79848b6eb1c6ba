"""Tests of runs that end before they learn anything: no replay and no Ray is left, and the name is free again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster.errors import ConfigError
from cluster.preflight.validation import validate
from cluster.run.blank import is_blank
from cluster.run.folder import open_run
from cluster.run.replay_plan import live_folder
from replay.store.locations import shared_folder
from tests.support import beside, tiny
from tests.support.live import command_line

SAME = "nothing was learned yet: the same command begins it anew"


def ray_in(folder: Path) -> list[str]:
    """Return the command lines of Ray processes with sessions in a folder."""
    return [line for line in map(command_line, psutil.process_iter()) if f"{folder}/ray/session_" in line]


@pytest.mark.parametrize("where", ["ray", "shared", "disk"])
def test_a_start_that_fails_leaves_nothing_and_can_be_tried_again(folder: Path, where: str) -> None:
    """If Ray does not start or actors cannot make an environment, no process and no replay is left, in shared memory
    or on a disk, and the same command begins the run again."""
    here = beside.prepare(folder / "h")
    options = ["--steps=400", "--actors.deadline=60", f"--ray-folder={folder}/ray"]
    options += ["--replay.directory=disk"] if where == "disk" else []
    trouble = {"RAY_OVERRIDE_RESOURCES": "nonsense"} if where == "ray" else {}
    if where != "ray":
        (here / "broken").touch()
    done = beside.train(here, "Still", "r", *options, **trouble)
    assert done.returncode == 1, done.stdout + done.stderr
    reason = "Ray does not start" if where == "ray" else "its licence is used up"
    assert reason in done.stdout + done.stderr and SAME in done.stdout and "brc resume" not in done.stdout
    assert not (shared_folder() / (here / "runs/r/id").read_text()).exists()
    assert not list((here / "disk").glob("*")) and not ray_in(folder)
    resumed = beside.train(here, "Still", "r", "--resume", *options)
    assert resumed.returncode == 2 and "leave out --resume to begin it anew" in resumed.stderr
    if where == "shared":
        (here / "broken").unlink()
        done = beside.train(here, "Still", "r", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        kinds = [json.loads(line)["event"] for line in (here / "runs/r/events.jsonl").read_text().splitlines()]
        assert kinds[0] == "start" and kinds[-1] == "finished" and "failed" not in kinds


def test_a_start_that_was_killed_can_be_tried_again(tmp_path: Path) -> None:
    """A new run replaces a killed run that learned nothing, and removes its replay in shared memory."""
    plan = validate(tiny.config(name="r", runs_folder=str(tmp_path), execution="distributed"))
    with open_run(plan, "quickstart") as killed:
        live = live_folder(plan, killed)
        (live / "shard-0").mkdir(parents=True)
    with open_run(plan, "quickstart") as again:
        assert again.id != killed.id and not live.exists()
        with pytest.raises(ConfigError, match="is live"):
            open_run(plan, "quickstart")


def test_what_has_learned_something_is_not_removed(tmp_path: Path) -> None:
    plan = validate(tiny.config(name="r", runs_folder=str(tmp_path)))
    with open_run(plan, "quickstart") as run:
        (run.path / "metrics.jsonl").write_text('{"updates": 0}\n{"updates": 1}\n')
    with pytest.raises(ConfigError, match=r"run r exists in .*: choose another --name$"):
        open_run(plan, "quickstart")
    resumed = validate(tiny.config(name="r", runs_folder=str(tmp_path), resume=True))
    with pytest.raises(ConfigError, match="run r has no checkpoint yet: choose another --name"):
        open_run(resumed, "quickstart")
    assert len((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_run_that_has_written_a_checkpoint_is_not_blank(tmp_path: Path) -> None:
    """A checkpoint event is enough: the checkpoints may be in another place, and the metrics may be lost."""
    with open_run(validate(tiny.config(name="r", runs_folder=str(tmp_path))), "quickstart") as run:
        (run.path / "events.jsonl").write_text('{"time": 1.0, "event": "start"}\n')
        assert is_blank(run.path, run.checkpoints)
        (run.path / "events.jsonl").write_text(
            '{"time": 1.0, "event": "start"}\n{"time": 2.0, "event": "checkpoint"}\n'
        )
        assert not is_blank(run.path, run.checkpoints)


def leave_checkpoint(folder: Path) -> None:
    """Write the manifest by which a checkpoint is recognised."""
    place = folder / "checkpoints" / "000000000600"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("{}")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("left", ["checkpoints", "metrics"])
def test_a_folder_whose_configuration_is_missing_is_not_trained_over(tmp_path: Path, left: str, resume: bool) -> None:
    if left == "checkpoints":
        leave_checkpoint(tmp_path / "r")
    else:
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "metrics.jsonl").write_text('{"updates": 1}\n')
    plan = validate(tiny.config(name="r", runs_folder=str(tmp_path), resume=resume))
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=f"r has {left} of a run whose config.yaml is missing: restore it or choose"):
        open_run(plan, "quickstart")
    assert sorted(tmp_path.rglob("*")) == there


def test_a_run_is_not_blank_whose_checkpoints_are_where_only_it_was_told_to_put_them(tmp_path: Path) -> None:
    config = tiny.config(name="r", runs_folder=str(tmp_path / "runs"))
    elsewhere = replace(config, learner=replace(config.learner, checkpoints=str(tmp_path / "store")))
    with open_run(validate(elsewhere), "quickstart") as run:
        leave_checkpoint(tmp_path / "store" / run.id)
    with pytest.raises(ConfigError, match=r"run r exists in .*: `brc resume r` goes on with it; or choose another"):
        open_run(validate(config), "quickstart")
    assert (run.path / "id").read_text() == run.id
