"""The files that tell what a run did, one JSON object a line; every other view is made from these."""

from __future__ import annotations

import json
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

EVALUATED = ("return", "success", "score", "score_mean", "score_iqm")  # what is mirrored of an evaluation
RECENT = 8  # events and evaluations that are at hand
NEWEST_BYTES = 1 << 20  # more than two rows of hundreds of tasks take


class Records:
    """Appends to the run's files; a line is on its way to disk when a call returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {name: (folder / f"{name}.jsonl").open("a") for name in ("events", "metrics", "eval")}
        self.tensorboard = EventFileWriter(str(folder / "tensorboard"))
        self.events = deque(tail(folder / "events.jsonl", RECENT), RECENT)
        self.evaluations = deque(tail(folder / "eval.jsonl", RECENT), RECENT)

    def event(self, kind: str, reason: str = "", **fields: Any) -> None:
        """Something that happened once: start, stop, death, restart, checkpoint, with its reason."""
        row = {"time": time.time(), "event": kind, "reason": reason, **fields}
        self.events.append(row)
        self._append("events", row)

    def metrics(self, row: dict[str, Any]) -> None:
        """One row of metrics; its numbers go to TensorBoard at row['env_steps']."""
        self._append("metrics", row)
        self._mirror(row["env_steps"], row)

    def evaluation(self, row: dict[str, Any]) -> None:
        """Scores of one evaluation; 'returns' and the like by task."""
        self.evaluations.append(row)
        self._append("eval", row)
        self._mirror(row["env_steps"], {"evaluation": {name: row[name] for name in EVALUATED}})

    def _append(self, name: str, row: dict[str, Any]) -> None:
        file = self.files[name]
        try:
            file.write(json.dumps(row) + "\n")
            file.flush()
        except OSError as error:  # of a full disk it does not say which file
            raise OSError(error.errno, error.strerror, file.name) from error

    def _mirror(self, step: int, row: dict[str, Any]) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in flatten(row)]
        self.tensorboard.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        self.tensorboard.close()


def flatten(row: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """(slash-joined name, number) for every number in nested dictionaries; the rest is left out."""
    found: list[tuple[str, float]] = []
    for key, value in row.items():
        if isinstance(value, dict):
            found += flatten(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((prefix + key, float(value)))
    return found


def tail(file: Path, count: int) -> list[dict[str, Any]]:
    """Up to `count` of the last whole rows of a .jsonl file, however long the file has become, oldest first."""
    if not file.exists():
        return []
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - NEWEST_BYTES))
        lines = stream.read().splitlines()
    rows: list[dict[str, Any]] = []
    for line in reversed(lines):
        if len(rows) == count:
            break
        with suppress(ValueError):
            rows.insert(0, json.loads(line))
    return rows


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; a last line cut short by a crash is left out, a missing file is empty."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
