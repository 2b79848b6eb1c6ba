"""Tests with a wall clock set back or forward by an hour: durations, rates and orders stay right."""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from cluster.cli import commands
from cluster.preflight.validation import validate
from cluster.run.folder import open_run
from cluster.run.registry import FileRegistry
from cluster.run.session import Session
from cluster.serial import SerialRun
from dashboards.events import Finished, Stopped
from dashboards.report import page, sections
from dashboards.report.runs import load
from dashboards.sinks import records
from dashboards.sinks.console import Console
from replay.policy_store import PolicyMessage, PolicyStore
from tests.integration.test_serial import StopAt
from tests.support import tiny

ROOT = Path(__file__).parents[2]
# Files that may read the wall clock: for timestamps that people read, and for the age of a timestamp.
STAMPS = {
    "cluster/cli/commands.py",
    "cluster/run/evaluation_row.py",
    "cluster/run/presence.py",
    "cluster/run/session.py",
    "dashboards/progress.py",
    "dashboards/sinks/records.py",
    "dashboards/sinks/tensorboard.py",
}


class Wall:
    """A wall clock that can be set. It goes back by `step_s` whenever it is read."""

    def __init__(self) -> None:
        self.real = time.time
        self.offset_s = 0.0
        self.step_s = 0.0

    def __call__(self) -> float:
        self.offset_s -= self.step_s
        return self.real() + self.offset_s


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    clock = Wall()
    monkeypatch.setattr(time, "time", clock)
    return clock


def test_only_stamps_are_of_the_wall_clock() -> None:
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = set()
    for file in files.splitlines():
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            asks = isinstance(node, ast.Attribute) and ast.unparse(node) == "time.time"
            names = {name.name for name in node.names} if isinstance(node, ast.ImportFrom) else set()
            if asks or (names & {"time", "datetime"}):
                found.add(file)
    assert {file for file in found if not file.startswith("tests/")} == STAMPS


def run(folder: Path, name: str, wall: Wall, stop_at: int = 1 << 60, **changes: object) -> None:
    """Make a serial run whose wall clock goes back an hour whenever it is read."""
    wall.step_s = 3600.0
    plan = validate(tiny.config(runs_folder=str(folder), name=name, report_interval=0.1, **changes))
    opened, stop = open_run(plan, "quickstart"), StopAt(stop_at)
    with opened, Console([task.name for task in plan.tasks], plan.config.steps, io.StringIO()) as console:
        session = Session(plan, opened, console)
        session.begin("quickstart")
        stop.run = SerialRun(plan, session, "cpu")
        session.ended(Finished() if stop.run.run(stop) else Stopped())
        session.close()
    wall.step_s = 0.0


def test_a_run_whose_clock_is_set_back_tells_sane_numbers(tmp_path: Path, wall: Wall) -> None:
    begun = time.monotonic()
    run(tmp_path, "a", wall, stop_at=900, checkpoint_interval=300)
    run(tmp_path, "a", wall, checkpoint_interval=300, resume=True)
    took = time.monotonic() - begun
    rows = records.read(tmp_path / "a" / "metrics.jsonl")
    stamps = [row["time"] for row in rows]
    assert stamps == sorted(stamps, reverse=True) and stamps[0] - stamps[-1] > 3600, "the clock did go back"
    elapsed = [row["elapsed_s"] for row in rows]
    assert elapsed == sorted(elapsed) and elapsed[0] >= 0 and elapsed[-1] <= took
    for before, row in itertools.pairwise(rows):
        if row["session"] == before["session"]:
            inserted = row["env_steps"] - before["env_steps"]
            assert row["steps_per_s"] == pytest.approx(inserted / (row["elapsed_s"] - before["elapsed_s"]), rel=0.01)
    assert all(0 <= row["seconds_left"] <= 1500 * took for row in rows if row["seconds_left"] is not None)
    assert all(0 <= row["policy_age_s"] <= took for row in rows)
    events = records.read(tmp_path / "a" / "events.jsonl")
    checkpoints = [event for event in events if event["event"] == "checkpoint"]
    assert all(0 <= event["seconds"] <= took for event in checkpoints)
    snapshots = [event["snapshot"] for event in checkpoints]
    assert snapshots == sorted(set(snapshots)), "the newest is the last by name"


def test_the_report_of_such_a_run_has_all_of_it(tmp_path: Path, wall: Wall) -> None:
    run(tmp_path, "a", wall, stop_at=900)
    run(tmp_path, "a", wall, resume=True)
    told = load(tmp_path / "a", "finished")
    assert told.rows[-1].env_steps == 1500 and len(told.rows) > 2
    assert [row.env_steps for row in told.evaluations] == [1500]
    assert all(speed is None or speed >= 0 for speed in sections.speed(told, lambda row: row.updates))
    assert told.marks() and 0 < told.marks()[0] <= told.rows[-1].elapsed_s
    page.write([told], tmp_path / "report.html")


@pytest.mark.parametrize("hours", [-1, 1])
def test_status_of_what_is_yet_to_come_is_that_it_was_just_now(tmp_path: Path, wall: Wall, hours: int) -> None:
    run(tmp_path, "a", wall, stop_at=400)
    FileRegistry(tmp_path).write(
        "a", events=f'[[{wall.real() + 3600 * hours}, "start", ""]]', heartbeat=str(wall.real())
    )
    wall.offset_s = -10.0
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        commands.status("a", str(tmp_path))
    assert ("  0m00s ago: start" in said.getvalue()) == (hours > 0)
    assert "last heard of 0m00s ago" in said.getvalue() and "-" not in said.getvalue().split("ago")[0].split("\n")[-1]


def test_what_crosses_to_another_host_is_an_age() -> None:
    """The age of a policy is right even if the clocks of learner and store differ."""
    store = PolicyStore()
    message = PolicyMessage(3, 1e9, (), np.zeros(1, np.float32))
    store.put(message, age_s=2.0)
    boxed, age_s = store.newest(-1)
    assert boxed is message and 2.0 <= age_s < 60.0
    assert store.newest(3) == []
