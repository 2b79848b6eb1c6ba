"""What a run's folder says of it, as the report needs it. The run may be under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from dashboards.metrics.tally import BEGINNINGS
from dashboards.sinks import records

POINTS = 400  # of a curve over time
MARKED = (*BEGINNINGS[1:], "actor_died", "shard_died", "learner_died", "evaluation_lost", "node_removed")
Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """`state` is the registry's word for how it is; `rows` are a sample of metrics.jsonl, `evaluations` are all of the
    deterministic policy, without what a resume has undone; `random` is that of the random policy."""

    name: str
    state: str
    config: dict[str, Any]
    rows: list[Row]
    evaluations: list[Row]
    random: Row | None
    events: list[Row]

    @cached_property
    def tasks(self) -> list[str]:
        """Names; none of a run that has not said anything yet."""
        for rows in (self.rows, self.evaluations, [self.random] if self.random else []):
            if rows:
                return list(rows[-1]["return"])
        return []

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of the packages that it began with last."""
        begun = [row for row in self.events if row["event"] in BEGINNINGS]
        return {"python": begun[-1]["python"], **begun[-1]["versions"]} if begun else {}

    def marks(self) -> list[float]:
        """Seconds at which it began anew or a part died."""
        return [row["elapsed_s"] for row in self.events if row["event"] in MARKED and "elapsed_s" in row]


def load(path: Path, state: str) -> Run:
    """The run in a folder. Raises OSError, which names the file, when one cannot be read."""
    evaluations = records.read(path / "eval.jsonl")
    random = [row for row in evaluations if row["policy"] == "random"]
    learned = [row for row in evaluations if row["policy"] != "random"]
    events = records.read(path / "events.jsonl")
    return Run(
        path.name,
        state,
        yaml.safe_load((path / "config.yaml").read_text()),
        standing(records.sample(path / "metrics.jsonl", POINTS), events, "elapsed_s"),
        standing(learned, events, "env_steps"),
        random[-1] if random else None,
        events,
    )


def session(row: Row) -> int:
    """Which of the processes that conducted the run has written a row; 0 in records of before these were counted."""
    found: int = row.get("session", 0)
    return found


def standing(rows: Sequence[Row], events: Sequence[Row], field: str) -> list[Row]:
    """Rows without those that a resume has undone, as its event says; `field` grows from row to row."""
    come_from = {"elapsed_s": "from_elapsed_s", "env_steps": "from_steps"}[field]
    for event in events:
        if come_from in event:
            rows = [row for row in rows if session(row) >= session(event) or row[field] <= event[come_from]]
    kept: list[Row] = []
    for row in reversed(rows):  # two of the same steps: the later
        if not kept or row[field] < kept[-1][field]:
            kept.append(row)
    return kept[::-1]
