"""Assembly of a report: one file that contains all that it needs."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dashboards.report import comparison, sections
from dashboards.report.curves import Series, group, task_curve
from dashboards.report.figures import COLORS, Figure, svg
from dashboards.report.runs import Run
from dashboards.sinks.console import duration
from replay.json_text import json_text

FOLDER = Path(__file__).parent
EVENTS = 200  # newest events that are listed


def write(runs: Sequence[Run], file: Path, apart: bool = False) -> None:
    """Write the report of runs. `apart` draws every run by itself; else repetitions of one experiment are one curve.

    Raises OSError when the file cannot be written.
    """
    replace_file(file, render(group(runs, apart)))


def write_series(variants: Mapping[str, Sequence[Run]], file: Path, title: str, score: float | None) -> None:
    """Write the report of a study: each variant's runs are one curve. `score` is the score whose price is compared."""
    series = [Series(number, label, tuple(runs)) for number, (label, runs) in enumerate(variants.items())]
    replace_file(file, render(series, title, score))


def replace_file(file: Path, text: str) -> None:
    """Write a file. A reader never sees a partial file, even with several writers."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def render(series: Sequence[Series], title: str = "", score: float | None = None) -> str:
    """Return the page as HTML."""
    runs = [run for one in series for run in one.runs]
    tasks = [(task, [task_curve(one, task) for one in series]) for task in sections.tasks_of(series)]
    table = [sections.task_row(series, task, curves) for task, curves in tasks]
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=title or " and ".join(one.label for one in series),
        made=time.strftime("%Y-%m-%d %H:%M %Z"),
        style=Markup((FOLDER / "page.css").read_text()),
        script=Markup((FOLDER / "page.js").read_text()),
        series=series,
        colors=COLORS,
        runs=[sections.run_row(one, run) for one in series for run in one.runs],
        scores=[drawing(figure) for figure in sections.score_figures(series)],
        same_tasks=sections.same_tasks(series),
        comparisons=[compared(group, score) for group in comparison.alike(series)],
        tasks=[drawing(sections.task_figure(series, task, curves)) for task, curves in tasks],
        table=table,
        peers=any(row["peers"] for row in table),
        times=[drawing(figure) for figure in sections.time_figures(series)],
        events=[events(one, run) for one in series for run in one.runs],
        differing=sections.differing(runs),
        configurations=[(run.name, yaml.safe_dump(run.config, sort_keys=False)) for run in runs],
        packages=list(dict.fromkeys(name for run in runs for name in run.versions)),
        versions=[(run.name, run.versions) for run in runs],
        everyone=len(runs),
    )


def compared(series: Sequence[Series], score: float | None) -> dict[str, Any]:
    """Return the comparison of several series with the same tasks, of their runs that came as far as the others."""
    series = [comparison.whole(one) for one in series]
    asked, rows = comparison.table(series, score)
    figures = [*comparison.axis_figures(series), *comparison.profile_figure(series)]
    return {
        "score": asked,
        "rows": rows,
        "tasks": series[0].tasks,
        "axes": [name for name, _ in comparison.AXES],
        "figures": [drawing(figure) for figure in figures],
    }


def drawing(figure: Figure) -> dict[str, Any]:
    """Return a figure's parts for the template. `points` are the values that the page shows at the pointer. Neither has
    numbers that are not finite, as a loss may be."""
    finite = [(line, [(x, y) for x, y in line.points if math.isfinite(y)]) for line in figure.lines]
    figure = replace(figure, lines=[line for line, known in finite if known])
    picture, place = svg(figure)
    curves = [
        {"series": line.number, "label": line.label, "points": [[rounded(x), rounded(y)] for x, y in known]}
        for line, known in finite
        if line.label and known
    ]
    points = json_text({**place, "unit": figure.x, "curves": curves}, separators=(",", ":"))
    return {"title": figure.title, "svg": Markup(picture), "points": points, "legend": bool(figure.spans)}


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def events(series: Series, run: Run) -> dict[str, Any]:
    """Return counts of events by kind, and the newest events with the elapsed time of the run."""
    newest = run.events[-EVENTS:][::-1]
    return {
        "series": series.number,
        "name": run.name,
        "counts": Counter(entry.event.kind for entry in run.events).most_common(),
        "rows": [
            (
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time)),
                duration(entry.elapsed_s),
                entry.event.kind,
                (entry.event.reason.strip().splitlines() or [""])[-1],
            )
            for entry in newest
        ],
        "left_out": len(run.events) - len(newest),
    }
