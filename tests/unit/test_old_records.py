"""Records of earlier versions are read, and a row that cannot be read is reported in one sentence."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from actors.causes import Cause
from cluster.config.presets import PRESETS
from cluster.errors import ConfigError
from cluster.preflight.validation import validate
from cluster.run import version
from cluster.run.folder import has_score
from cluster.supervise.learner_group import is_of_devices
from cluster.training import cause_of
from dashboards.codec import encode
from dashboards.events import ActorDied, Begun, Failed, from_row, to_row
from dashboards.report.curves import experiment
from dashboards.report.runs import load
from dashboards.sinks.records import RowUnreadable, read_evaluations
from learner.device_failed import ConnectionFailed, DeviceFailed
from replay.json_text import json_text
from tests.support import rows, tiny

LATER = ("agent", "network", "loss", "normalize_observations")  # options of the learner that later versions added


def without(row: dict[str, Any], *names: str) -> str:
    return json_text({name: value for name, value in row.items() if name not in names}) + "\n"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of a run whose records lack the fields that later versions added."""
    folder = tmp_path / "old"
    folder.mkdir()
    config = encode(PRESETS["quickstart"]())
    config["learner"] = {name: value for name, value in config["learner"].items() if name not in LATER}
    (folder / "config.yaml").write_text(yaml.safe_dump({"preset": "quickstart", **config}))
    (folder / "eval.jsonl").write_text(without(encode(rows.evaluation()), "elapsed_s", "bad_episodes"))
    (folder / "metrics.jsonl").write_text(without(encode(rows.row()), "learner_threads", "clipped"))
    (folder / "events.jsonl").write_text(without(to_row(rows.entry(Begun(how="start"))), "schema", "version"))
    return folder


def test_a_run_without_what_came_later_is_read(old: Path) -> None:
    assert read_evaluations(old)[0].mean_return == {rows.TASK: 1.0}
    run = load(old, "finished")
    assert (len(run.rows), len(run.evaluations)) == (1, 1)
    now = {"preset": "quickstart", **encode(PRESETS["quickstart"]())}
    assert experiment(run.config) == experiment(now), "its options have the defaults, so it is the same experiment"


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("The actor died because its node has died.", Cause.NODE_LOST),
        ("it has grown to 9.0 GB", Cause.OUT_OF_MEMORY),
        ("it has not made a step for 120 s", Cause.HUNG),
        ("nobody knows", Cause.DIED),
    ],
)
def test_deaths_of_earlier_versions_have_the_cause_that_they_were_counted_with(reason: str, cause: Cause) -> None:
    row = {"time": 1.0, "elapsed_s": 1.0, "event": "actor_died", "reason": reason, "actor": "dmc-0", "incarnation": 0}
    event = from_row(row).event
    assert isinstance(event, ActorDied) and event.cause == cause
    failed = from_row({"time": 1.0, "elapsed_s": 1.0, "event": "failed", "reason": reason}).event
    assert isinstance(failed, Failed) and failed.cause == cause
    named = from_row(row | {"cause": "killed"}).event
    assert isinstance(named, ActorDied) and named.cause == Cause.KILLED, "a cause that is said counts"


def test_a_row_that_cannot_be_read_is_named(old: Path) -> None:
    with (old / "eval.jsonl").open("a") as file:
        file.write('{"time": 1.0}\n')
    with pytest.raises(RowUnreadable, match=r"eval\.jsonl has a row that this version cannot read"):
        read_evaluations(old)
    plan = validate(tiny.config(runs_folder=str(old.parent)))
    with pytest.raises(ConfigError, match=r"eval\.jsonl has a row"):
        has_score(old, plan)


@pytest.mark.parametrize("error", [MemoryError("no room"), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_lack_of_memory_is_a_cause(error: Exception) -> None:
    assert cause_of(error) == Cause.OUT_OF_MEMORY


def test_a_connection_that_breaks_is_no_cause_if_another_rank_has_one() -> None:
    device, connection, other = DeviceFailed("CUDA error"), ConnectionFailed("NCCL"), RuntimeError("a bug")
    assert is_of_devices([device]) and is_of_devices([connection, connection]) and is_of_devices([other, device])
    assert not is_of_devices([connection, other]) and not is_of_devices([other])


def test_to_ask_for_the_commit_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may use the checkout while runs begin from it, so git's index must not change."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    file = tmp_path / "file"
    file.write_text("one")
    for words in (("init", "-q"), ("add", "file"), ("commit", "-q", "-m", "one")):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(version, "ROOT", tmp_path)
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    file.touch()  # `git status` would write the new time to its index
    before = (tmp_path / ".git" / "index").read_bytes()
    assert version.commit.__wrapped__() == head.strip()
    assert (tmp_path / ".git" / "index").read_bytes() == before
    file.write_text("two")
    assert version.commit.__wrapped__() == f"{head.strip()}+"
