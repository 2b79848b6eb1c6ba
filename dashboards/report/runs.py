"""What a run's folder says of it, as the report needs it. The run may be under way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dashboards import records
from dashboards.tally import BEGINNINGS

POINTS = 400  # of a curve over time
EVENTS = 200  # that are listed
MARKED = (*BEGINNINGS[1:], "actor_died", "shard_died", "learner_died", "node_removed")


@dataclass(frozen=True)
class Run:
    """`state` is the registry's word for how it is; `rows` are a sample of metrics.jsonl, `evaluations` are all of the
    deterministic policy, without what a resume has undone; `random` is that of the random policy."""

    name: str
    state: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    random: dict[str, Any] | None
    events: list[dict[str, Any]]

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

    def elapsed(self, time: float) -> float:
        """Seconds that the run had taken at a time of the clock."""
        if not self.rows:
            return 0.0
        return float(np.interp(time, [row["time"] for row in self.rows], [row["elapsed_s"] for row in self.rows]))

    def marks(self) -> list[tuple[float, str]]:
        """(seconds, what) of beginnings anew and deaths."""
        return [(self.elapsed(row["time"]), row["event"]) for row in self.events if row["event"] in MARKED]


def load(path: Path, state: str) -> Run:
    """The run in a folder. Raises OSError and yaml.YAMLError when its configuration cannot be read."""
    evaluations = records.read(path / "eval.jsonl")
    random = [row for row in evaluations if row["policy"] == "random"]
    learned = [row for row in evaluations if row["policy"] != "random"]
    return Run(
        path.name,
        state,
        yaml.safe_load((path / "config.yaml").read_text()),
        records.standing(records.sample(path / "metrics.jsonl", POINTS), "elapsed_s"),
        records.standing(learned, "env_steps"),
        random[-1] if random else None,
        records.read(path / "events.jsonl"),
    )
