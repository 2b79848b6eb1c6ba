"""What a report draws of evaluations: means of runs that differ in their seed alone, and how sure they are."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from actors.scores import BY_SUCCESS
from dashboards import aggregate
from dashboards.report.runs import Run

# What two runs may differ in and be repetitions of one experiment: none of it changes what is learned, but by chance.
BY_THE_WAY = {"name", "seed", "preset", "resume", "steps", "runs_folder", "ray_folder", "report_interval", "wandb"}
BY_THE_WAY |= {"checkpoint_interval", "keep_checkpoints", "metrics", "evaluation"}
POINTS = 60  # with an interval
RESAMPLES = 500

Bounds = tuple[float, float]


class Curve(NamedTuple):
    """Means over environment steps of each task, with 95 percent intervals."""

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Series:
    """Runs of one configuration. `number` is its place among all, which decides its color."""

    number: int
    label: str
    runs: tuple[Run, ...]


def group(runs: Sequence[Run], apart: bool = False) -> list[Series]:
    """Runs that differ in nothing but their seed together; `apart` has each by itself."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        same = {key: value for key, value in run.config.items() if key not in BY_THE_WAY}
        found.setdefault(run.name if apart else json.dumps(same, sort_keys=True), []).append(run)
    return [Series(number, label(members), tuple(members)) for number, members in enumerate(found.values())]


def label(runs: Sequence[Run]) -> str:
    """A run's name, or what the names of several begin with and how many they are."""
    if len(runs) == 1:
        return runs[0].name
    names = [run.name for run in runs]
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    begin = "".join(letters[0] for letters in alike).rstrip("-_.")
    return f"{begin or ', '.join(names)} ({len(runs)} runs)"


def by_success(task: str) -> bool:
    """Whether a task is judged by its share of episodes with success, as the paper does, and not by returns."""
    return task.split("/", 1)[0] in BY_SUCCESS


def episodes(evaluation: dict[str, Any], task: str) -> list[float]:
    """What its episodes are judged by."""
    found: list[float] = evaluation["scores" if by_success(task) else "returns"].get(task) or []
    return found


def task_curve(series: Series, task: str) -> Curve | None:
    """Of one task. Its intervals are over runs or, of a single run, over the episodes of each evaluation."""
    return curve(series, lambda row: columns([episodes(row, task)]), aggregate.mean_interval, mean)


def score_curve(series: Series, interquartile: bool) -> Curve | None:
    """The score over all tasks that have one. Intervals are over runs (rows) by task, or over episodes likewise."""
    interval, value = (aggregate.iqm_interval, aggregate.iqm) if interquartile else (aggregate.mean_interval, mean)
    return curve(series, lambda row: columns(list(row["scores"].values())), interval, value)


def curve(
    series: Series,
    table: Callable[[dict[str, Any]], np.ndarray | None],
    interval: Callable[..., Bounds],
    value: Callable[[np.ndarray], float],
) -> Curve | None:
    """`table` gives (episodes, tasks) of an evaluation. Several runs are compared at the steps of the first one's
    evaluations, as far as all of them have come; between two evaluations a run's mean is interpolated."""
    tables = [[(row["env_steps"], table(row)) for row in run.evaluations] for run in series.runs]
    found = [[(steps, one) for steps, one in run if one is not None] for run in tables]
    if not all(found):
        return None
    first = max(run[0][0] for run in found)
    last = min(run[-1][0] for run in found)
    steps = thinned([steps for steps, _ in found[0] if first <= steps <= last])
    if len(found) == 1:
        at = dict(found[0])
        rows = [at[step] for step in steps]
    else:
        rows = list(np.stack([interpolated(run, steps) for run in found], axis=1))
    if not steps:
        return None
    bounds = [interval(row, resamples=RESAMPLES) for row in rows]
    return Curve(list(steps), [value(row) for row in rows], [low for low, _ in bounds], [high for _, high in bounds])


def interpolated(run: Sequence[tuple[int, np.ndarray]], steps: Sequence[float]) -> np.ndarray:
    """(steps, tasks): a run's means over episodes."""
    means = np.array([one.mean(axis=0) for _, one in run])
    at = [step for step, _ in run]
    return np.stack([np.interp(steps, at, column) for column in means.T], axis=1)


def columns(values: Sequence[Sequence[float]]) -> np.ndarray | None:
    """(episodes, tasks) of as many episodes as all tasks have; None of none."""
    count = min((len(one) for one in values), default=0)
    return np.array([one[:count] for one in values], float).T if count else None


def thinned(steps: Sequence[float]) -> list[float]:
    """At most POINTS of them, the first and the last among these."""
    if len(steps) <= POINTS:
        return list(steps)
    return [steps[round(place)] for place in np.linspace(0, len(steps) - 1, POINTS)]


def mean(values: np.ndarray) -> float:
    return float(np.mean(values))
