"""Content of a run's folder, as the report needs it. The run may be live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from dashboards.events import (
    ActorDied,
    Begun,
    Entry,
    EvaluationLost,
    Event,
    GoneBack,
    LearnerDied,
    LearnerReady,
    ShardDied,
)
from dashboards.report.aggregate import iqm
from dashboards.rows import EvaluationRow, Row
from dashboards.sinks import records
from learner.config import LearnerConfig

POINTS = 400  # points of a curve over time
DEATHS = (ActorDied, ShardDied, LearnerDied, EvaluationLost)
BY_TASK = ("mean_return", "success", "score", "returns", "scores", "lengths")  # of an evaluation
R = TypeVar("R", Row, EvaluationRow)


@dataclass(frozen=True)
class Run:
    """Data of a run. `state` is its state in the registry. `rows` are a sample of metrics.jsonl; `evaluations` are all
    evaluations of the deterministic policy. Both omit rows that a resume has undone. `random` is the evaluation of the
    random policy."""

    name: str
    state: str
    config: dict[str, Any]
    rows: list[Row]
    evaluations: list[EvaluationRow]
    random: EvaluationRow | None
    events: list[Entry]

    @cached_property
    def tasks(self) -> list[str]:
        """Names of the tasks; empty if the run has no rows yet."""
        newest = (self.rows[-1:], self.evaluations[-1:], [self.random] if self.random else [])
        return next((list(row.mean_return) for rows in newest for row in rows), [])

    @cached_property
    def versions(self) -> dict[str, str]:
        """Versions of Python and packages when the run last began."""
        begun = [entry.event for entry in self.events if isinstance(entry.event, Begun)]
        return {"python": begun[-1].python, **begun[-1].versions} if begun else {}

    @cached_property
    def update_flops(self) -> int:
        """Floating-point operations of an update; 0 if the run has not recorded them."""
        made = [entry.event.learner.update_flops for entry in self.events if isinstance(entry.event, LearnerReady)]
        return made[-1] if made else 0

    def marks(self) -> list[float]:
        """Return the elapsed seconds at which the run began again or a part died."""
        return [one.elapsed_s for one in self.events if is_marked(one.event) and one.elapsed_s is not None]


def is_marked(event: Event) -> bool:
    return isinstance(event, DEATHS) or (isinstance(event, Begun) and event.how != "start")


def load(path: Path, state: str) -> Run:
    """Load the run in a folder. Raises OSError, which names the file, if a file cannot be read, and RowUnreadable.

    Options of the learner that the run's version did not have get their defaults: the run was trained as if with them.
    """
    evaluations = records.read_evaluations(path)
    random = [row for row in evaluations if row.is_random]
    learned = [row for row in evaluations if not row.is_random]
    events = records.read_events(path)
    rows = records.decoded(Row, path / "metrics.jsonl", records.sample(path / "metrics.jsonl", POINTS))
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["learner"] = asdict(LearnerConfig()) | config.get("learner", {})
    return Run(
        path.name,
        state,
        config,
        standing(rows, events, lambda row: row.elapsed_s, lambda event: event.from_elapsed_s),
        standing(learned, events, lambda row: row.env_steps, lambda event: event.from_steps),
        random[-1] if random else None,
        events,
    )


def standing(
    rows: Sequence[R],
    events: Sequence[Entry],
    at: Callable[[R], float],
    come_from: Callable[[Begun | GoneBack], float | None],
) -> list[R]:
    """Return the rows that no resume has undone. `at` gives a row's position, which grows from row to row; `come_from`
    gives the position from which the run continues after an event."""
    kept = list(rows)
    for entry in events:
        if isinstance(entry.event, (Begun, GoneBack)) and (begins := come_from(entry.event)) is not None:
            kept = [row for row in kept if row.session >= entry.session or at(row) <= begins]
    found: list[R] = []
    for row in reversed(kept):  # of two rows at the same position, keep the later
        if not found or at(row) < at(found[-1]):
            found.append(row)
    return found[::-1]


def merged(name: str, runs: Sequence[Run]) -> Run:
    """Return runs of one task each, all evaluated, as one run of all their tasks, without rows of metrics.

    It has the evaluations of the first run, beside those of the others that are nearest in environment steps, as far as
    all runs have come. Their times and updates are added.
    """

    def nearest(run: Run, steps: int) -> EvaluationRow:
        return min(run.evaluations, key=lambda row: abs(row.env_steps - steps))

    def together(rows: Sequence[EvaluationRow]) -> EvaluationRow:
        by_task: dict[str, Any] = {name: {} for name in BY_TASK}
        for row in rows:
            for key, found in by_task.items():
                found |= getattr(row, key)
        scores = np.array([value for value in by_task["score"].values() if value is not None], float)
        return replace(
            rows[0],
            **by_task,
            updates=sum(row.updates for row in rows),
            elapsed_s=sum(row.elapsed_s or 0.0 for row in rows),
            score_mean=float(scores.mean()) if len(scores) else None,
            score_iqm=iqm(scores) if len(scores) else None,
        )

    first, others = runs[0], runs[1:]
    last = min(run.evaluations[-1].env_steps for run in runs)
    # The last evaluations of runs that are done differ by a few steps: those belong together.
    shared = [row for row in first.evaluations if row.env_steps <= 1.02 * last]
    random = [run.random for run in runs if run.random is not None]
    return Run(
        name,
        ", ".join(dict.fromkeys(run.state for run in runs)),
        first.config | {"tasks": [task for run in runs for task in run.config["tasks"]]},
        [],
        [together([row, *(nearest(run, row.env_steps) for run in others)]) for row in shared],
        together(random) if len(random) == len(runs) else None,
        first.events,
    )
