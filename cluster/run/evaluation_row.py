"""The row of eval.jsonl that tells of an evaluation, and the line that tells of the row."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import normalized
from actors.evaluator import Evaluation
from dashboards.progress import mean
from dashboards.report.aggregate import finite, iqm
from dashboards.rows import EvaluationRow
from dashboards.sinks.console import number


def evaluation_row(tasks: Sequence[Task], evaluation: Evaluation, env_steps: int, elapsed_s: float) -> EvaluationRow:
    """Scores and returns by task, of an evaluation of a run's tasks that was begun at `env_steps`.

    Means and scores are of the episodes that gave numbers alone; where a task has none of these, its own and those
    over all tasks are None. `bad_episodes` says by task how many gave others, if any did.
    """
    scores = scores_of(tasks, evaluation)
    whole = all(scores.values())
    successes = {
        task: [success for success, value in zip(found, evaluation.returns[task], strict=True) if math.isfinite(value)]
        for task, found in evaluation.successes.items()
    }
    return EvaluationRow(
        time=time.time(),
        elapsed_s=elapsed_s,
        env_steps=env_steps,
        updates=max(0, evaluation.version),
        policy="random" if evaluation.version < 0 else "deterministic",
        mean_return={task: mean(finite(values)) for task, values in evaluation.returns.items()},
        success={task: mean(values) for task, values in successes.items()},
        score={task: mean(values) for task, values in scores.items()},
        score_mean=mean([value for values in scores.values() for value in values]) if whole else None,
        score_iqm=iqm(np.array([mean(values) for values in scores.values()])) if scores and whole else None,
        returns={task: list(values) for task, values in evaluation.returns.items()},
        scores=scores,
        lengths=evaluation.lengths,
        bad_episodes=bad_episodes(evaluation.returns),
    )


def bad_episodes(returns: dict[str, list[float]]) -> dict[str, int]:
    """Counts, by task, the episodes whose return is no number. Tasks without such episodes are left out."""
    counts = {task: len(values) - len(finite(values)) for task, values in returns.items()}
    return {task: count for task, count in counts.items() if count}


def missing(lost: Sequence[tuple[int, str]]) -> list[str]:
    """Says in a sentence for each cause which evaluations are missing. `lost` has their steps and causes."""
    sentences = []
    for cause in dict.fromkeys(cause for _, cause in lost):
        steps = [f"{env_steps:,}" for env_steps, other in lost if other == cause]
        at = f"at {in_words(steps)} steps"
        which = f"the evaluation {at} is" if len(steps) == 1 else f"the evaluations {at} are"
        sentences.append(f"{which} missing: {cause}")
    return sentences


def in_words(names: Sequence[str]) -> str:
    """Names the first two, and counts the rest."""
    return " and ".join(names) if len(names) <= 2 else f"{names[0]}, {names[1]} and {len(names) - 2} more"


def unsound(returns: dict[str, list[float]]) -> list[str]:
    """Says in a sentence for each such task how many of its episodes gave no numbers."""
    return [
        f"{task}: {bad} of {len(returns[task])} episodes gave numbers that are none"
        for task, bad in bad_episodes(returns).items()
    ]


def scores_of(tasks: Sequence[Task], evaluation: Evaluation) -> dict[str, list[float]]:
    """Scores of the episodes that gave numbers, by tasks that have a score."""
    found: dict[str, list[float]] = {}
    for task in tasks:
        pairs = zip(evaluation.returns[task.name], evaluation.successes[task.name], strict=True)
        scores = [(value, normalized(task, value, success)) for value, success in pairs]
        if any(score is not None for _, score in scores):
            found[task.name] = [score for value, score in scores if score is not None and math.isfinite(value)]
    return found


def scored(evaluation: EvaluationRow) -> str:
    """An evaluation in a line."""
    returns = ", ".join(f"{task} {number(value)}" for task, value in evaluation.mean_return.items())
    return f"{evaluation.policy} at {evaluation.env_steps:,}: {returns}"
