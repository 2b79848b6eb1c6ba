"""Comparison of series of runs: what they reach, how surely one is better, and what a score costs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dashboards.report import aggregate
from dashboards.report.curves import Axis, Curve, Series, minutes, score_curve, steps, teraflop, updates
from dashboards.report.figures import Figure, Line

AXES: tuple[tuple[str, Axis], ...] = (
    ("environment steps of each task", steps),
    ("updates", updates),
    ("minutes", minutes),
    ("1e12 operations in updates", teraflop),
)
THRESHOLDS = np.linspace(0.0, 1.0, 101)
WHOLE = 0.95  # share of the steps of the longest run of a series from which a run counts as whole


def alike(series: Sequence[Series]) -> list[list[Series]]:
    """Return the series in groups with the same tasks, those groups that have several."""
    groups: dict[frozenset[str], list[Series]] = {}
    for one in series:
        groups.setdefault(frozenset(one.tasks), []).append(one)
    return [group for group in groups.values() if len(group) > 1]


def whole(series: Series) -> Series:
    """Return a series without the runs that were evaluated less far than the others: their scores are earlier ones, and
    would cut the curves of all."""
    last = max((run.evaluations[-1].env_steps for run in series.evaluated), default=0)
    runs = [run for run in series.evaluated if run.evaluations[-1].env_steps >= WHOLE * last]
    return replace(series, runs=tuple(runs))


def final_scores(series: Series, tasks: Sequence[str]) -> np.ndarray | None:
    """Return the last scores of these tasks, (runs, tasks), of the runs that have all of them; None if there are
    none."""
    rows = []
    for run in series.evaluated:
        found = [aggregate.finite(run.evaluations[-1].scores.get(task) or []) for task in tasks]
        if found and all(found):
            rows.append([float(np.mean(values)) for values in found])
    return np.array(rows) if rows else None


def reached(curve: Curve | None, score: float) -> float | None:
    """Return where a curve first reaches a score, interpolated; None if it does not."""
    if curve is None:
        return None
    before: tuple[float, float] | None = None
    for place, value in zip(curve.steps, curve.mean, strict=True):
        if value >= score:
            if before is None or value == before[1]:
                return place
            share = (score - before[1]) / (value - before[1])
            return before[0] + share * (place - before[0])
        before = (place, value)
    return None


def price(series: Series, score: float, axis: Axis) -> float | None:
    """Return where, along an axis, the mean curve first reaches a score: the mean over runs of their places at those
    environment steps; None if it does not, or if the places are not known."""
    at = reached(score_curve(series, False), score)
    if at is None:
        return None
    found = []
    for run in series.evaluated:
        places = [(row.env_steps, axis(run, row)) for row in run.evaluations]
        known = [(step, place) for step, place in places if place is not None]
        if known:
            at_steps, at_places = zip(*known, strict=True)
            found.append(float(np.interp(at, at_steps, at_places)))
    return float(np.mean(found)) if found else None


def axis_figures(series: Sequence[Series]) -> list[Figure]:
    """Return figures of the mean score over updates, time and operations: steps have a figure of their own."""
    found = []
    for name, axis in AXES[1:]:
        curves = [(one, score_curve(one, False, axis)) for one in series]
        lines = [
            Line(one.number, one.label, list(zip(curve.steps, curve.mean, strict=True)), (curve.low, curve.high))
            for one, curve in curves
            if curve is not None
        ]
        if lines:
            found.append(Figure(f"Mean score over {name}", name, lines))
    return found


def profile_figure(series: Sequence[Series]) -> list[Figure]:
    """Return the figure of performance profiles: the share of runs and tasks above each score, at the end."""
    lines = [
        Line(
            one.number,
            one.label,
            list(zip(THRESHOLDS.tolist(), aggregate.performance_profile(scores, THRESHOLDS).tolist(), strict=True)),
        )
        for one in series
        if (scores := final_scores(one, series[0].tasks)) is not None
    ]
    title = "Performance profile: share of runs and tasks above a score"
    return [Figure(title, "score", lines, share=True)] if lines else []


def table(series: Sequence[Series], score: float | None = None) -> tuple[float, list[dict[str, Any]]]:
    """Return the score whose price is compared, by default half of the best final mean, and a row for each series.

    A row has the final interquartile mean and mean with intervals, the probability of improvement over the first
    series, updates a second, operations of an update, and the price of the score along each of AXES.
    """
    finals = [final_scores(one, series[0].tasks) for one in series]
    means = [float(scores.mean()) for scores in finals if scores is not None]
    asked = score if score is not None else 0.5 * max(means, default=0.0)
    rows = []
    for one, scores in zip(series, finals, strict=True):
        base, better = finals[0], None
        if one is not series[0] and scores is not None and base is not None:
            better = (
                aggregate.probability_of_improvement(scores, base),
                *aggregate.improvement_interval(scores, base),
            )
        rows.append(
            {
                "series": one.number,
                "label": one.label,
                "runs": 0 if scores is None else len(scores),
                "iqm": None if scores is None else (aggregate.iqm(scores), *aggregate.iqm_interval(scores)),
                "mean": None if scores is None else (float(scores.mean()), *aggregate.mean_interval(scores)),
                "better": better,
                "speed": speed(one),
                "gigaflop": next((run.update_flops / 1e9 for run in one.runs if run.update_flops), None),
                "price": [price(one, asked, axis) for _, axis in AXES],
            }
        )
    return asked, rows


def speed(series: Series) -> float | None:
    """Return the updates a second over whole runs, in the mean of runs."""
    newest = [run.rows[-1] for run in series.runs if run.rows]
    found = [row.updates / row.elapsed_s for row in newest if row.elapsed_s]
    return float(np.mean(found)) if found else None
