"""Figures and tables of a report, made from series of runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from actors.benchmarks.catalogue import all_tasks, normalized
from dashboards.report import peers, published
from dashboards.report.curves import Curve, Series, by_success, episodes, frames, most_frames, score_curve
from dashboards.report.figures import Figure, Line, Spans, short
from dashboards.report.runs import Run
from dashboards.rows import Row
from dashboards.sinks.console import duration

STEPS = "environment steps of each task"


WORDS = {"actors": "actors", "learner": "learner", "limiter": "both, by turns", "balanced": "nobody"}
MARKS = 300  # places on the x axis that marks are rounded to


def tasks_of(series: Sequence[Series]) -> list[str]:
    """Return the tasks of all runs, in the order of the first run."""
    return list(dict.fromkeys(task for one in series for task in one.tasks))


def same_tasks(series: Sequence[Series]) -> bool:
    return all(set(one.tasks) == set(series[0].tasks) for one in series)


def score_figures(series: Sequence[Series]) -> list[Figure]:
    """Return figures of mean and interquartile mean score over all tasks; none if no task has a score. The mean has the
    paper's curve beside it if all series have the same tasks."""
    found = []
    for title, interquartile in (("Mean score", False), ("Interquartile mean score", True)):
        lines = [line for one in series for line in drawn(one, score_curve(one, interquartile))]
        if lines and not interquartile and same_tasks(series):
            tasks = tasks_of(series)
            repeats = {task: most_frames(series, task) for task in tasks}
            lines += paper_line(partial(paper_score, repeats), most_steps(series))
        if lines:
            found.append(Figure(title, STEPS, lines))
    return found


def paper_score(repeats: Mapping[str, int], steps: int) -> float | None:
    """Return the mean score of the paper after `steps` steps, of as many frames as the tasks' repeats; None unless it
    has values of all tasks."""
    scores = []
    for task, repeat in repeats.items():
        curve = published.curve(task)
        value = None if curve is None else curve.at(repeat * steps)
        score = None if value is None else normalized(all_tasks()[task], value, value)
        if score is None:
            return None
        scores.append(score)
    return float(np.mean(scores)) if scores else None


def paper_line(value: Callable[[int], float | None], most: int) -> list[Line]:
    """Return the paper's curve at its own points, up to the steps of the runs."""
    interval = published.document()["interval_env_steps_per_task"]
    found = [(steps, value(steps)) for steps in (*range(interval, most, interval), most)]
    known = [(steps, at) for steps, at in found if at is not None]
    return [Line(-1, "paper", known, color="paper", style="--")] if known else []


def most_steps(series: Sequence[Series]) -> int:
    return max((run.evaluations[-1].env_steps for one in series for run in one.runs if run.evaluations), default=0)


def task_figure(series: Sequence[Series], task: str, curves: Sequence[Curve | None]) -> Figure:
    """Return a task's figure: evaluations with interval; thin, each of several runs; dotted, training; dashed, paper
    and random policy."""
    lines: list[Line] = []
    for one, found in zip(series, curves, strict=True):
        for run in one.runs:
            if task in run.tasks:
                lines += thin_lines(one, run, task)
        lines += drawn(one, found)
    curve, most = published.curve(task), most_steps([one for one in series if task in one.tasks])
    if curve is not None:
        repeat = most_frames(series, task)
        lines += paper_line(lambda steps: curve.at(repeat * steps), most)
    lines += peer_lines(task, most_frames(series, task), most)
    random = random_value(series, task)
    if random is not None and most:
        lines.append(Line(-1, "random", ((0, random), (most, random)), color="random", style="--", width=0.8))
    return Figure(task, STEPS, lines, share=by_success(task))


def peer_lines(task: str, repeat: int, most: int) -> list[Line]:
    """Return thin lines of the published curves of agents of this task alone, as far as the runs have come."""
    found: list[Line] = []
    for _, frames_, means in peers.curves(task).values():
        points = [(at / repeat, value) for at, value in zip(frames_, means, strict=True) if at <= repeat * most]
        if len(points) > 1:
            found.append(Line(-1, "" if found else "agents of one task", points, color="peers", style=":", width=0.6))
    return found


def drawn(series: Series, curve: Curve | None) -> list[Line]:
    if curve is None:
        return []
    points = list(zip(curve.steps, curve.mean, strict=True))
    return [Line(series.number, series.label, points, (curve.low, curve.high))]


def thin_lines(series: Series, run: Run, task: str) -> list[Line]:
    """Return lines of a run's training and, if the series has several runs, of its own evaluations."""
    values = [(row.env_steps, (row.success if by_success(task) else row.mean_return).get(task)) for row in run.rows]
    training = [(steps, value) for steps, value in values if value is not None]
    found = [Line(series.number, "", training, style=":", width=0.7)] if training else []
    evaluated = [(row.env_steps, float(np.mean(episodes(row, task)))) for row in run.evaluations if episodes(row, task)]
    if len(series.runs) > 1 and evaluated:
        found.append(Line(series.number, "", evaluated, width=0.4))
    return found


def random_value(series: Sequence[Series], task: str) -> float | None:
    """Return the mean over runs whose random policy was evaluated; None if there is none."""
    means = [
        np.mean(episodes(run.random, task))
        for one in series
        for run in one.runs
        if run.random and episodes(run.random, task)
    ]
    return float(np.mean(means)) if means else None


def task_row(series: Sequence[Series], task: str, curves: Sequence[Curve | None]) -> dict[str, Any]:
    """Return a task's newest values: of random actions, of each series with the paper's value at the same steps, and of
    agents of that task alone at the most steps of a series."""
    paper = published.curve(task)
    newest = [
        curve
        and (
            curve.mean[-1],
            curve.low[-1],
            curve.high[-1],
            short(curve.steps[-1]),
            paper and paper.at(most_frames([one], task) * curve.steps[-1]),
        )
        for one, curve in zip(series, curves, strict=True)
    ]
    most = max(
        (most_frames([one], task) * curve.steps[-1] for one, curve in zip(series, curves, strict=True) if curve),
        default=-1,
    )
    return {
        "task": task,
        "random": random_value(series, task),
        "newest": newest,
        "peers": peers.at(task, most),
        "digits": 2 if by_success(task) else 1,
    }


def run_row(series: Series, run: Run) -> dict[str, Any]:
    """Return the state of a run as a line of the table."""
    row = run.rows[-1] if run.rows else None
    newest = run.evaluations[-1] if run.evaluations else None
    return {
        "series": series.number,
        "name": run.name,
        "state": run.state,
        "preset": run.config["preset"],
        "seed": run.config["seed"],
        "tasks": len(run.tasks),
        "steps": row.env_steps if row else 0,
        "repeats": sorted({frames(run, task) for task in run.tasks} - {1}),
        "frozen": run.config.get("metaworld", {}).get("goals") == "frozen",
        "budget": run.config["steps"],
        "updates": row.updates if row else 0,
        "elapsed": duration(row.elapsed_s if row else 0.0),
        "ratio": (row.samples_per_insert, row.samples_per_insert_target) if row else (0.0, 0.0),
        "mean": newest and newest.score_mean,
        "iqm": newest and newest.score_iqm,
        "bottleneck": usual_bottleneck(run),
    }


def usual_bottleneck(run: Run) -> str:
    """Return the side that was waited for in most rows, and its share of rows."""
    said = Counter(row.bottleneck for row in run.rows[1:])
    if not said:
        return ""
    side, count = said.most_common(1)[0]
    return f"{WORDS[side]} {count / said.total():.0%}"


def bottlenecks(run: Run, unit: float) -> list[tuple[float, float, str]]:
    """Return (from, to, side) of each sampled row, beginning at the previous row. Equal neighbours are merged."""
    found: list[tuple[float, float, str]] = []
    for before, row in zip(run.rows, run.rows[1:], strict=False):
        begun, ended, side = before.elapsed_s / unit, row.elapsed_s / unit, row.bottleneck
        if found and found[-1][2] == side:
            begun = found.pop()[0]
        found.append((begun, ended, side))
    return found


def time_figures(series: Sequence[Series]) -> list[Figure]:
    """Return figures over elapsed time: speed, waiting, bottleneck, and the learner's numbers."""
    longest = max((run.rows[-1].elapsed_s for one in series for run in one.runs if run.rows), default=0.0)
    unit, name = (3600.0, "hours") if longest > 7200 else (60.0, "minutes")
    each = [(one, run) for one in series for run in one.runs if run.rows]
    place = max(longest, 1.0) / unit / MARKS
    marks = sorted({(one.number, place * round(at / unit / place)) for one, run in each for at in run.marks()})

    def over_time(title: str, *fields: tuple[str, Callable[[Run], list[float | None]], str]) -> Figure:
        lines = []
        for one, run in each:
            for what, values, style in fields:
                points = zip([row.elapsed_s / unit for row in run.rows], values(run), strict=True)
                known = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
                if known:
                    lines.append(Line(one.number, f"{run.name}{what}", known, style=style, width=1))
        return Figure(title, name, lines, marks=marks)

    def value(of: Callable[[Row], float | None]) -> Callable[[Run], list[float | None]]:
        return lambda run: [of(row) for row in run.rows]

    def metric(of: str) -> Callable[[Run], list[float | None]]:
        return value(lambda row: row.learner.get(of))

    strips = [Spans(one.number, run.name, bottlenecks(run, unit)) for one, run in each if len(run.rows) > 1]
    figures = [
        over_time("Environment steps a second, all tasks", ("", lambda run: speed(run, all_steps), "-")),
        over_time("Updates a second", ("", lambda run: speed(run, lambda row: row.updates), "-")),
        over_time(
            "Share of time waiting: learner (dashed: actors)",
            (" learner", value(lambda row: row.learner_wait_share), "-"),
            (" actors", value(lambda row: row.actor_wait_share), "--"),
        ),
        Figure("Who is waited for", name, spans=strips),
        over_time("Actors that collect", ("", value(lambda row: row.actors), "-")),
        over_time("Age of the oldest policy, seconds", ("", value(lambda row: row.policy_age_s), "-")),
        over_time("Samples per insert", ("", value(lambda row: row.samples_per_insert), "-")),
        over_time("Replay's fill", ("", value(lambda row: row.replay_fill), "-")),
        over_time("Critic's loss", ("", metric("critic_loss"), "-")),
        over_time("Policy's loss", ("", metric("policy_loss"), "-")),
        over_time("Entropy, nats", ("", metric("entropy"), "-")),
        over_time("Temperature", ("", metric("temperature"), "-")),
        over_time("Share of task pairs whose gradients conflict", ("", metric("conflict_share"), "-")),
        over_time("Mean cosine of task pairs' gradients", ("", metric("conflict_cosine"), "-")),
        over_time("Norm of the critic's gradient", ("", metric("critic_gradient_norm"), "-")),
        over_time("Norm of the critic's parameters", ("", metric("critic_parameter_norm"), "-")),
    ]
    return [figure for figure in figures if figure.lines or figure.spans]


def all_steps(row: Row) -> float:
    return float(sum(row.env_steps_by_task.values()))


def speed(run: Run, count: Callable[[Row], float]) -> list[float | None]:
    """Return the increase of a count per second between each row and the previous row. It is None if a part's death
    made the count fall, or if another coordinator took over: its predecessor no longer counted the time."""
    found: list[float | None] = [None]
    for before, row in zip(run.rows, run.rows[1:], strict=False):
        more, seconds = count(row) - count(before), row.elapsed_s - before.elapsed_s
        known = more >= 0 and before.session == row.session
        found.append(more / seconds if known else None)
    return found


def differing(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return (option, its value in each run) for options in which the runs differ, except their names."""
    tables = [flat(run.config) for run in runs]
    options = dict.fromkeys(option for table in tables for option in table)
    found = [(option, [table.get(option, "") for table in tables]) for option in options if option != "name"]
    return [(option, values) for option, values in found if len(set(values)) > 1]


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found
