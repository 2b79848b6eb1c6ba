"""Tests of JSON files: null stands for NaN and infinite numbers, and all readers understand it."""

from __future__ import annotations

import ast
import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.run import evaluation_row
from dashboards.codec import decode
from dashboards.events import Checkpoint
from dashboards.report import page
from dashboards.report.runs import load
from dashboards.rows import Row
from dashboards.sinks import records
from dashboards.sinks.records import Records
from replay.json_text import json_text, with_nulls
from replay.snapshots.snapshot import Place, extremes_of
from tests.support import tiny

ROOT = Path(__file__).parents[2]
HELD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats() | st.floats(width=32).map(np.float64),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


def refuse(word: str) -> Any:
    raise AssertionError(f"{word} is no JSON")


def strictly(text: str) -> Any:
    return json.loads(text, parse_constant=refuse)


@given(HELD)
def test_what_is_written_is_json_and_differs_in_nothing_else(value: Any) -> None:
    assert strictly(json_text(value)) == with_nulls(json.loads(json.dumps(value)))


def test_all_json_is_written_by_one_function() -> None:
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = set()
    for file in files.splitlines():
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.dump", "json.dumps"):
                found.add(file)
    # snapshot.py only checks an existing file against its checksum.
    ours = {file for file in found if not file.startswith("tests/")}
    assert ours == {"replay/json_text.py", "replay/snapshots/snapshot.py"}


def json_files(folder: Path) -> list[Path]:
    found = [path for kind in ("*.json", "*.jsonl") for path in folder.rglob(kind)]
    return [*found, *(path for path in folder.rglob("registry/*") if path.read_text()[:1] in ("[", "{"))]


def test_a_run_writes_no_other_number(folder: Path) -> None:
    """All files of a run are strict JSON. Its snapshot has a task without an episode, whose extremes are infinite."""
    done = tiny.train(folder, "a", "--execution=serial", "--steps=400")
    assert done.returncode == 0, done.stdout + done.stderr
    files = json_files(folder)
    assert {"metrics.jsonl", "shard-0.json", "learner.json", "manifest.json", "events", "kept"} <= {
        path.name for path in files
    } | {"kept"}
    for path in files:
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            strictly(line)
    place = Place(str(folder / "runs" / "a" / "replay"))
    manifest = place.manifest(place.snapshots()[-1], 0)
    assert manifest["extremes"] == [[None], [None]]
    np.testing.assert_array_equal(extremes_of(manifest), [[math.inf], [-math.inf]])
    resumed = tiny.train(folder, "a", "--execution=serial", "--steps=1400", "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr


def test_a_snapshot_from_before_is_still_read(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    place.write_manifest("1-2", 0, {"format": "brc-replay-3", "shards": 1, "extremes": [[1.0, None], [2.0, None]]})
    file = tmp_path / "1-2" / "shard-0.json"
    body = {"format": "brc-replay-3", "shards": 1, "extremes": [[1.0, math.inf], [2.0, -math.inf]]}
    new = extremes_of(place.manifest("1-2", 0))
    import zlib

    file.write_text(json.dumps({"crc32": zlib.crc32(json.dumps(body).encode()), "body": body}))
    np.testing.assert_array_equal(extremes_of(place.manifest("1-2", 0)), new)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_without_a_number_are_read_and_drawn(tmp_path: Path, folder: Path, bad: float) -> None:
    done = tiny.train(folder, "a", "--execution=serial", "--steps=400")
    assert done.returncode == 0, done.stdout + done.stderr
    run = folder / "runs" / "a"
    task = "dmc/cartpole-swingup"
    evaluation = records.read_evaluations(run)[-1]
    row = decode(Row, records.read(run / "metrics.jsonl")[-1])
    written = Checkpoint(
        env_steps=1, updates=1, checkpoint="", snapshot="", seconds=bad, part_seconds={}, part_bytes={}
    )
    again = Records(run)
    again.evaluation(
        replace(
            evaluation,
            env_steps=900,
            mean_return={task: bad},
            score={task: bad},
            returns={task: [bad]},
            scores={task: [bad]},
            score_mean=bad,
            score_iqm=bad,
        )
    )
    again.metrics(replace(row, elapsed_s=row.elapsed_s + 1, policy_age_s=bad, learner={"critic_loss": bad}))
    again.event(written)
    again.close()
    for path in json_files(folder):
        if path.suffix == ".jsonl":
            assert all(strictly(line) for line in path.read_text().splitlines())
    assert evaluation_row.scored(records.read_evaluations(run)[-1]).endswith("-")
    page.write([load(run, "finished")], tmp_path / "report.html")
    assert "NaN" not in (tmp_path / "report.html").read_text()
