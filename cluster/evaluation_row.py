"""The row of eval.jsonl that tells of an evaluation, and the line that tells of the row."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.catalogue import Task
from actors.evaluator import Evaluation
from actors.scores import normalized
from dashboards.aggregate import iqm
from dashboards.console import number
from dashboards.progress import mean


def evaluation_row(tasks: Sequence[Task], evaluation: Evaluation, env_steps: int, elapsed_s: float) -> dict[str, Any]:
    """Scores and returns by task, of an evaluation of a run's tasks that was begun at `env_steps`."""
    scores = scores_of(tasks, evaluation)
    return {
        "time": time.time(),
        "elapsed_s": elapsed_s,
        "env_steps": env_steps,
        "updates": max(0, evaluation.version),
        "policy": "random" if evaluation.version < 0 else "deterministic",
        "return": {task: mean(values) for task, values in evaluation.returns.items()},
        "success": {task: mean(values) for task, values in evaluation.successes.items()},
        "score": {task: mean(values) for task, values in scores.items()},
        "score_mean": mean([value for values in scores.values() for value in values]),
        "score_iqm": None if not scores else iqm(np.array([mean(values) for values in scores.values()])),
        "returns": evaluation.returns,
        "scores": scores,
        "lengths": evaluation.lengths,
    }


def scores_of(tasks: Sequence[Task], evaluation: Evaluation) -> dict[str, list[float]]:
    """Scores of every episode, by tasks that have a score."""
    found: dict[str, list[float]] = {}
    for task in tasks:
        pairs = zip(evaluation.returns[task.name], evaluation.successes[task.name], strict=True)
        scores = [normalized(task, episode_return, success) for episode_return, success in pairs]
        if known := [score for score in scores if score is not None]:
            found[task.name] = known
    return found


def scored(evaluation: dict[str, Any]) -> str:
    """An evaluation in a line."""
    returns = ", ".join(f"{task} {number(value)}" for task, value in evaluation["return"].items())
    return f"{evaluation['policy']} at {evaluation['env_steps']:,}: {returns}"
