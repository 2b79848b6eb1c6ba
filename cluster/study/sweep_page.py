"""Writes the page of a sweep: its trials, and Optuna's pictures of them, in one HTML file that needs no server."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.visualization import matplotlib as pictures

from cluster.run.folder import REPORT
from cluster.study.search import in_words
from cluster.study.sweep import Sweep
from dashboards.report.page import replace_file

FOR_IMPORTANCE = 4  # trials that are done, without which an importance says nothing
STYLE = """
:root { color-scheme: light dark } body { margin: 0 auto; max-width: 70rem; padding: 1rem; font: 15px/1.45 system-ui }
table { border-collapse: collapse } td, th { padding: 0.1rem 0.8rem 0.1rem 0; text-align: left }
figure { margin: 1rem 0; background: white; overflow-x: auto } svg { max-width: 100%; height: auto }
"""


def write(sweep: Sweep, study: Any, folder: Path) -> Path:
    """Write the page into the sweep's folder and return its file. At least one trial has ended."""
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state == optuna.trial.TrialState.COMPLETE]
    drawings: list[tuple[str, Callable[[], Any]]] = [
        ("Scores of each trial's evaluations", lambda: pictures.plot_intermediate_values(study)),
    ]
    if done:
        drawings += [
            ("The best score so far", lambda: pictures.plot_optimization_history(study)),
            ("Values and scores", lambda: pictures.plot_parallel_coordinate(study)),
            ("Each option alone", lambda: pictures.plot_slice(study)),
        ]
    if len(done) >= FOR_IMPORTANCE and len(sweep.space) > 1:
        importance = PedAnovaImportanceEvaluator()
        drawings.append(
            ("How much each option matters", lambda: pictures.plot_param_importances(study, evaluator=importance))
        )
    title = escape(f"{sweep.name}: {sweep.about}" if sweep.about else sweep.name)
    parts = [f"<h1>{title}</h1>", _table(sweep, study)]
    parts += [f"<h2>{escape(heading)}</h2>\n{_figure(draw)}" for heading, draw in drawings]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    text = f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head><body>\n'
    replace_file(folder / REPORT, text + "\n".join(parts) + "\n</body></html>\n")
    return folder / REPORT


def _table(sweep: Sweep, study: Any) -> str:
    """Return the trials as a table, best first; a pruned trial has its last score."""
    trials = sorted(study.get_trials(deepcopy=False), key=lambda trial: trial.value is None or -trial.value)
    rows = ["<tr><th>trial</th><th>score</th><th>state</th><th>evaluations</th><th>values</th></tr>"]
    for trial in trials:
        score = "" if trial.value is None else f"{trial.value:.3f}"
        cells = (sweep.run_name(trial.number), score, trial.state.name.lower(), len(trial.intermediate_values))
        shown = "".join(f"<td>{escape(str(cell))}</td>" for cell in (*cells, in_words(trial.params)))
        rows.append(f"<tr>{shown}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _figure(draw: Callable[[], Any]) -> str:
    """Return one of Optuna's pictures as SVG, or why it could not be drawn."""
    text, usual = io.StringIO(), plt.get_backend()
    plt.switch_backend("agg")  # Optuna asks the canvas for what that of SVG lacks
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of experimental parts, and of layouts
            draw()
            figure = plt.gcf()
            figure.set_size_inches(10, 5)
            figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    except Exception as error:  # any error of drawing, as of scores beyond what axes can show
        return f"<p>not drawn: {escape(type(error).__name__)}: {escape(str(error))}</p>"
    finally:
        plt.close("all")
        plt.switch_backend(usual)
    found = text.getvalue()
    return f"<figure>{found[found.index('<svg') :]}</figure>"
