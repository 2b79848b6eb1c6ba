"""Mirror of a run's numbers in TensorBoard event files, beside its records."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from dashboards.events import Entry
from dashboards.rows import EvaluationRow, Row
from dashboards.sinks.records import flatten, numbers_of_evaluation, numbers_of_event, numbers_of_row


class TensorBoard:
    """Mirror that writes every number of a row under its slash-joined name, at row['env_steps']."""

    def __init__(self, folder: Path) -> None:
        self.writer = EventFileWriter(str(folder / "tensorboard"))

    def event(self, entry: Entry) -> None:
        if numbers := numbers_of_event(entry.event):
            self._write(numbers)

    def metrics(self, row: Row) -> None:
        self._write(numbers_of_row(row))

    def evaluation(self, row: EvaluationRow) -> None:
        self._write(numbers_of_evaluation(row))

    def _write(self, row: dict[str, Any]) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in flatten(row)]
        self.writer.add_event(Event(wall_time=time.time(), step=row["env_steps"], summary=Summary(value=values)))

    def close(self) -> None:
        self.writer.close()
