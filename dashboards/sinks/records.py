"""Record files of a run, one JSON object a line. Every other view is a mirror of these files."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TextIO, TypeVar

from dashboards.codec import decode, encode
from dashboards.events import Checkpoint, Entry, Event, MirrorFailed, from_row, to_row
from dashboards.rows import EvaluationRow, Row
from replay.json_text import json_text

RECENT = 8  # newest events and evaluations that are kept in memory
T = TypeVar("T")
NEWEST_BYTES = 1 << 20  # more than two rows take with hundreds of tasks


class Mirror(Protocol):
    """View that shows the same rows elsewhere. A mirror must not make its caller wait for a network."""

    def event(self, entry: Entry) -> None: ...

    def metrics(self, row: Row) -> None: ...

    def evaluation(self, row: EvaluationRow) -> None: ...

    def close(self) -> None: ...


class Records:
    """Append rows to the run's files, then to the mirrors. A line is flushed to the system when a call returns.

    `time` of a row is wall-clock time, which may go back. `session` and `elapsed_s` never go back while a run goes on.

    A mirror that raises is removed, with an event; the run goes on without it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mirrors: list[Mirror] = []
        self.elapsed_s: Callable[[], float] = lambda: 0.0  # seconds that the run has taken
        self.files = {name: opened(folder / f"{name}.jsonl") for name in ("events", "metrics", "eval")}
        self.events = deque(map(from_row, tail(folder / "events.jsonl", RECENT)), RECENT)
        self.evaluations = deque(
            decoded(EvaluationRow, folder / "eval.jsonl", tail(folder / "eval.jsonl", RECENT)), RECENT
        )
        # Number of processes that have written these files. It orders rows where clocks cannot.
        self.session = 1 + (self.events[-1].session if self.events else 0)

    def event(self, event: Event, elapsed_s: float | None = None) -> None:
        """Record an event that happened now, or after the run had taken `elapsed_s` seconds."""
        entry = Entry(time.time(), self.elapsed_s() if elapsed_s is None else elapsed_s, event, self.session)
        self.events.append(entry)
        self._append("events", to_row(entry))
        self._mirror("event", entry)

    def metrics(self, row: Row) -> None:
        self._append("metrics", encode(row))
        self._mirror("metrics", row)

    def evaluation(self, row: EvaluationRow) -> None:
        self.evaluations.append(row)
        self._append("eval", encode(row))
        self._mirror("evaluation", row)

    def _append(self, name: str, row: dict[str, Any]) -> None:
        file = self.files[name]
        try:
            file.write(json_text({**row, "session": self.session}) + "\n")
            file.flush()
        except OSError as error:  # for a full disk, Python's error does not name the file
            raise OSError(error.errno, error.strerror, file.name) from error

    def _mirror(self, what: str, row: Entry | Row | EvaluationRow) -> None:
        for mirror in list(self.mirrors):
            try:
                getattr(mirror, what)(row)
            except Exception as error:  # other libraries may raise anything
                self.mirrors.remove(mirror)
                # Close the mirror, so that its numbers do not look current. The run does not wait for its server.
                threading.Thread(target=end, args=(mirror,), daemon=True).start()
                self.event(MirrorFailed(reason=f"{type(error).__name__}: {error}", mirror=type(mirror).__name__))

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        for mirror in self.mirrors:
            end(mirror)


def end(mirror: Mirror) -> None:
    with suppress(Exception):
        mirror.close()


def opened(path: Path) -> TextIO:
    """Open a file to append rows. End a last line that a crash has cut short: it would corrupt the next row."""
    file = path.open("a")
    if file.tell():
        with path.open("rb") as written:
            written.seek(-1, os.SEEK_END)
            if written.read() != b"\n":
                file.write("\n")
    return file


def numbers_of_row(row: Row) -> dict[str, Any]:
    """Return the values of a metrics row that mirrors get."""
    return {name: value for name, value in encode(row).items() if name != "session"}


def numbers_of_evaluation(row: EvaluationRow) -> dict[str, Any]:
    """Return the values of an evaluation that mirrors get. Those of the random policy are named `random`."""
    means = {"return": row.mean_return, "success": row.success, "score": row.score}
    scores = {"score_mean": row.score_mean, "score_iqm": row.score_iqm}
    return {"random" if row.is_random else "evaluation": means | scores, "env_steps": row.env_steps}


def numbers_of_event(event: Event) -> dict[str, Any]:
    """Return the values of an event that mirrors get, {} for none."""
    if not isinstance(event, Checkpoint):
        return {}
    taken = {"seconds": event.seconds, "part_seconds": event.part_seconds, "part_bytes": event.part_bytes}
    return {"checkpoint": taken, "env_steps": event.env_steps}


def flatten(row: dict[Any, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return (slash-joined name, number) for every number in nested dictionaries and in lists of dictionaries."""
    found: list[tuple[str, float]] = []
    for key, value in row.items():
        if isinstance(value, dict):
            found += flatten(value, f"{prefix}{key}/")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            found += flatten(dict(enumerate(value)), f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((prefix + key, float(value)))
    return found


def tail(file: Path, count: int) -> list[dict[str, Any]]:
    """Return up to `count` of the last whole rows of a .jsonl file, oldest first. Read only the last NEWEST_BYTES."""
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


def sample(file: Path, count: int) -> list[dict[str, Any]]:
    """Return at most `count` + 1 rows of a .jsonl file in order, evenly spread over its bytes, with the first and last
    row. The time does not depend on the length of the file."""
    if not file.exists():
        return []
    size = file.stat().st_size
    rows: list[dict[str, Any]] = []
    begun = -1  # offset of the row that was read last
    with file.open("rb") as stream:
        for offset in (size * part // count for part in range(count)):
            if offset <= begun:
                continue
            stream.seek(max(0, offset - 1))
            if offset:
                stream.readline()  # skip the rest of a row that began before this offset
            begun = stream.tell()
            with suppress(ValueError):
                rows.append(json.loads(stream.readline()))
    last = tail(file, 1)
    return rows + last if rows[-1:] != last else rows


def read(file: Path) -> list[dict[str, Any]]:
    """Return the objects of a .jsonl file without lines cut short by a crash. A missing file counts as empty."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


class RowUnreadable(Exception):
    """A row of a run's records has a form that this version does not know."""


def read_events(folder: Path) -> list[Entry]:
    """Return all events of the run in a folder, oldest first."""
    return [from_row(row) for row in read(folder / "events.jsonl")]


def read_evaluations(folder: Path) -> list[EvaluationRow]:
    """Return all evaluations of the run in a folder, oldest first. Raises RowUnreadable."""
    file = folder / "eval.jsonl"
    return decoded(EvaluationRow, file, read(file))


def decoded(kind: type[T], file: Path, rows: Sequence[dict[str, Any]]) -> list[T]:
    """Return the dataclasses of a file's rows. Raises RowUnreadable, which names the file, for one of another form."""
    try:
        return [decode(kind, row) for row in rows]
    except ValueError as error:
        reason = " ".join(str(error).split()[:20])
        raise RowUnreadable(f"{file} has a row that this version cannot read ({reason}): move the file away") from error
