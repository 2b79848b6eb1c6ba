"""Tests of Weights & Biases without its server: the rows of a run, which wandb keeps in a file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dashboards.codec import decode
from dashboards.events import from_row
from dashboards.rows import EvaluationRow
from dashboards.sinks.records import flatten, numbers_of_evaluation, numbers_of_event
from tests.support import tiny
from tests.support.live import free_port

wandb = pytest.importorskip("wandb")
BLOCK, HEAD = 32768, 7  # bytes of a block and of a header in LevelDB's log, the file's format


def history(file: Path) -> list[dict[str, Any]]:
    """Return the logged rows of a file."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole, found = file.read_bytes(), HEAD, b"", []
    while at + HEAD < len(data):
        if BLOCK - at % BLOCK < HEAD:
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + HEAD : at + HEAD + size]
        at += HEAD + size
        if kind in (1, 4):  # a whole record, or its last part
            record = Record.FromString(whole)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                found.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
            whole = b""
    return found


def train(folder: Path, name: str, project: str = "team/brc", **environment: str) -> subprocess.CompletedProcess[str]:
    command = tiny.train_command(folder, name, "--execution=serial", "--steps=600", f"--wandb={project}")
    mine = {key: value for key, value in tiny.environment().items() if not key.startswith("WANDB")}
    mine |= {"HOME": str(folder), **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=mine)


def test_every_row_is_handed_over_under_its_name(tmp_path: Path) -> None:
    done = train(tmp_path, "a", WANDB_MODE="offline")
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tmp_path / "runs" / "a" / "wandb").glob("offline-run-*/*.wandb")
    assert (tmp_path / "runs" / "a" / "id").read_text() in file.name
    rows, evaluations, events = (tiny.rows(tmp_path, "a", name) for name in ("metrics", "eval", "events"))
    others = [numbers for row in events if (numbers := numbers_of_event(from_row(row).event))]
    assert others, "a checkpoint has been written"
    logged = history(file)
    assert len(logged) == len(rows) + len(evaluations) + len(others)
    of_metrics = [row for row in logged if "updates" in row]
    for row, found in zip(rows, of_metrics, strict=True):
        del row["session"]  # it counts the processes that wrote to the file
        assert {name: found[name] for name, _ in flatten(row)} == pytest.approx(dict(flatten(row)))
    rest = [row for row in logged if "updates" not in row]
    assert {name.split("/")[0] for row in rest for name in row} >= {"random", "evaluation", "checkpoint"}
    for wanted in [*others, *(numbers_of_evaluation(decode(EvaluationRow, row)) for row in evaluations)]:
        numbers = dict(flatten(wanted))
        assert any({name: row.get(name) for name in numbers} == pytest.approx(numbers) for row in rest), wanted


def test_a_server_out_of_reach_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    nowhere = {"WANDB_BASE_URL": f"http://127.0.0.1:{free_port()}", "WANDB_API_KEY": "0" * 40}
    done = train(tmp_path, "a", **nowhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Weights & Biases does not take the run" in done.stdout
    (event,) = [row for row in tiny.rows(tmp_path, "a", "events") if row["event"] == "mirror_failed"]
    assert event["mirror"] == "WandB"


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    done = train(tmp_path, "a", WANDB_MODE="offline", project="team/my:project")
    assert done.returncode == 2 and "--wandb 'team/my:project' is not a project" in done.stderr


def test_without_a_key_it_is_refused(tmp_path: Path) -> None:
    done = train(tmp_path, "a")
    assert done.returncode == 2 and not (tmp_path / "runs").exists()
    assert "there is no key for api.wandb.ai: run `wandb login`, or set WANDB_API_KEY" in done.stderr
