"""Curves of evaluations in a report: means of runs that repeat one experiment, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from actors.benchmarks.catalogue import benchmarks
from dashboards.report import aggregate
from dashboards.report.runs import Run
from dashboards.rows import EvaluationRow
from replay.json_text import json_text

# Options in which repetitions of one experiment may differ, by section; "" for options outside sections. They change
# learning only by chance, or set how long, where and with which views a run goes on.
BY_THE_WAY = {
    "": {"name", "seed", "preset", "resume", "steps", "runs_folder", "ray_folder", "report_interval", "wandb"}
    | {"checkpoint_interval", "keep_checkpoints", "metrics", "evaluation"},
    "learner": {"checkpoints", "threads", "deadline", "profile"},
    "replay": {"directory", "snapshots"},
}
POINTS = 60  # most points of a curve; each has an interval
RESAMPLES = 500
SEPARATORS = "-_."

Bounds = tuple[float, float]
Points = list[tuple[float, np.ndarray]]  # place on the x axis, such as environment steps; (rows, tasks)


# (run, evaluation) -> the place of an evaluation on an x axis; None if it is not known
Axis = Callable[[Run, EvaluationRow], float | None]


def steps(run: Run, row: EvaluationRow) -> float | None:
    return float(row.env_steps)


def updates(run: Run, row: EvaluationRow) -> float | None:
    return float(row.updates)


def frames(run: Run, task: str) -> int:
    """Return the steps of a task's environment in one step of the run, for which an action is held."""
    actors = run.config.get("actors", {})
    of, benchmark = actors.get("of", {}), task.split("/")[0]
    own = [
        value for name, value in of.items() if name.replace("-", "_") == f"{benchmark.replace('-', '_')}.action_repeat"
    ]
    return int(own[0] if own else actors.get("action_repeat", 1))


def most_frames(series: Sequence[Series], task: str) -> int:
    """Return the most `frames` of a task in these series, by which published curves are stretched."""
    return max((frames(run, task) for one in series for run in one.runs), default=1)


def minutes(run: Run, row: EvaluationRow) -> float | None:
    return None if row.elapsed_s is None else row.elapsed_s / 60.0


def teraflop(run: Run, row: EvaluationRow) -> float | None:
    """Return the floating-point operations in the products of all updates so far, in 1e12."""
    return row.updates * run.update_flops / 1e12 if run.update_flops else None


class Curve(NamedTuple):
    """Means with 95 percent intervals, over environment steps of each task or another x axis."""

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Series:
    """Runs of one experiment. `number` is the place of the series among all, and decides its color."""

    number: int
    label: str
    runs: tuple[Run, ...]

    @property
    def evaluated(self) -> list[Run]:
        """Runs that have been evaluated."""
        return [run for run in self.runs if run.evaluations]

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(task for run in self.runs for task in run.tasks))


def group(runs: Sequence[Run], apart: bool = False) -> list[Series]:
    """Group repetitions of one experiment into a series. With `apart`, make a series of each run."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.name if apart else experiment(run.config), []).append(run)
    labels = [label(members) for members in found.values()]
    often = Counter(labels)
    return [
        Series(number, name if often[name] == 1 else ", ".join(run.name for run in members), tuple(members))
        for number, (name, members) in enumerate(zip(labels, found.values(), strict=True))
    ]


def experiment(config: dict[str, Any]) -> str:
    """Return the options that define the experiment, as JSON: all except BY_THE_WAY."""
    kept = {key: value for key, value in config.items() if key not in BY_THE_WAY[""]}
    for section in kept.keys() & BY_THE_WAY.keys():
        kept[section] = {key: value for key, value in kept[section].items() if key not in BY_THE_WAY[section]}
    return json_text(kept, sort_keys=True)


def label(runs: Sequence[Run]) -> str:
    """Return a run's name; for several runs their common prefix, up to a separator, and their number."""
    if len(runs) == 1:
        return runs[0].name
    names = [run.name for run in runs]
    alike = 0
    while all(len(name) > alike and name[alike] == names[0][alike] for name in names):
        alike += 1
    end = max((place for place in range(alike) if names[0][place] in SEPARATORS), default=0)
    return f"{names[0][:end] or ', '.join(names)} ({len(runs)} runs)"


def by_success(task: str) -> bool:
    """Whether a task is judged by its share of successful episodes, as in the paper, and not by returns."""
    name = task.split("/", 1)[0]
    return name in benchmarks() and benchmarks()[name].by_success


def episodes(evaluation: EvaluationRow, task: str) -> list[float]:
    """Return the finite scores or returns, whichever judge the task, of its episodes."""
    return aggregate.finite((evaluation.scores if by_success(task) else evaluation.returns).get(task) or [])


def task_curve(series: Series, task: str) -> Curve | None:
    """Return the curve of a task. Intervals are over runs, or over the episodes of each evaluation for a single run."""
    return curve(points(series, lambda row: [episodes(row, task)]), mean, aggregate.mean_interval)


def score_curve(series: Series, interquartile: bool, at: Axis = steps) -> Curve | None:
    """Return the curve of the score over all tasks that have one, with intervals as in `task_curve`. The interquartile
    mean of several runs is over runs and tasks; that of a single run is over task means. `at` is its x axis."""
    found = points(series, lambda row: [aggregate.finite(values) for values in row.scores.values()], at)
    if not interquartile:
        return curve(found, mean, aggregate.mean_interval)
    if len(series.evaluated) > 1:
        return curve(found, aggregate.iqm, aggregate.iqm_interval)
    return curve(found, lambda rows: aggregate.iqm(rows.mean(axis=0)), aggregate.iqm_of_means_interval)


def curve(found: Points, value: Callable[[np.ndarray], float], interval: Callable[..., Bounds]) -> Curve | None:
    if not found:
        return None
    bounds = [interval(rows, resamples=RESAMPLES) for _, rows in found]
    return Curve(
        [place for place, _ in found],
        [value(rows) for _, rows in found],
        [low for low, _ in bounds],
        [high for _, high in bounds],
    )


def points(series: Series, values: Callable[[EvaluationRow], list[list[float]]], at: Axis = steps) -> Points:
    """Return values at up to POINTS evaluations: (episodes, tasks) for a single run, (runs, tasks) for several.

    `values` gives each task's episodes in an evaluation, `at` its place. Several runs are compared at the places of the
    first run, within the range that all runs cover. A run's mean is interpolated between its evaluations. Runs without
    an evaluation are left out.
    """
    each = [
        [
            (place, table)
            for row in run.evaluations
            if (table := columns(values(row))) is not None and (place := at(run, row)) is not None
        ]
        for run in series.evaluated
    ]
    each = [run for run in each if run]
    if not each:
        return []
    first, last = max(run[0][0] for run in each), min(run[-1][0] for run in each)
    chosen = thinned([one for one in each[0] if first <= one[0] <= last])
    if len(each) == 1:
        return chosen
    places = [place for place, _ in chosen]
    if not places:
        return []
    return list(zip(places, np.stack([interpolated(run, places) for run in each], axis=1), strict=True))


def interpolated(run: Points, places: Sequence[float]) -> np.ndarray:
    """Return a run's means over episodes, interpolated at the given places, of shape (places, tasks)."""
    means = np.array([table.mean(axis=0) for _, table in run])
    at = [place for place, _ in run]
    return np.stack([np.interp(places, at, column) for column in means.T], axis=1)


def columns(values: list[list[float]]) -> np.ndarray | None:
    """Return an array (episodes, tasks), cut to the fewest episodes of any task; None if that is 0."""
    count = min((len(one) for one in values), default=0)
    return np.array([one[:count] for one in values], float).T if count else None


def thinned(found: Points) -> Points:
    """Return at most POINTS of the points, including the first and the last."""
    if len(found) <= POINTS:
        return found
    return [found[round(place)] for place in np.linspace(0, len(found) - 1, POINTS)]


def mean(values: np.ndarray) -> float:
    return float(np.mean(values))
