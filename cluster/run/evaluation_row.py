"""Makes the row of eval.jsonl for an evaluation, and the line of text for the row."""

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
    """Return scores and returns by task, for an evaluation of a run's tasks that was begun at `env_steps`.

    Means and scores count only episodes with finite returns. Where a task has no such episode, its own means and the
    scores over all tasks are None. `bad_episodes` has the number of other episodes by task, if there are any.
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
    """Count, by task, the episodes whose return is not finite. Tasks without such episodes are left out."""
    counts = {task: len(values) - len(finite(values)) for task, values in returns.items()}
    return {task: count for task, count in counts.items() if count}


def missing(lost: Sequence[tuple[int, str]]) -> list[str]:
    """Return a sentence for each cause, with the missing evaluations. `lost` has their steps and causes."""
    sentences = []
    for cause in dict.fromkeys(cause for _, cause in lost):
        steps = [f"{env_steps:,}" for env_steps, other in lost if other == cause]
        at = f"at {in_words(steps)} steps"
        which = f"the evaluation {at} is" if len(steps) == 1 else f"the evaluations {at} are"
        sentences.append(f"{which} missing: {cause}")
    return sentences


def in_words(names: Sequence[str]) -> str:
    """Return the first two names and the number of the others, in words."""
    return " and ".join(names) if len(names) <= 2 else f"{names[0]}, {names[1]} and {len(names) - 2} more"


def unsound(returns: dict[str, list[float]]) -> list[str]:
    """Return a sentence for each task with episodes whose return is not finite."""
    return [
        f"{task}: {bad} of {len(returns[task])} episodes gave numbers that are none"
        for task, bad in bad_episodes(returns).items()
    ]


def scores_of(tasks: Sequence[Task], evaluation: Evaluation) -> dict[str, list[float]]:
    """Return the scores of episodes with finite returns, by task, for tasks that have a score."""
    found: dict[str, list[float]] = {}
    for task in tasks:
        pairs = zip(evaluation.returns[task.name], evaluation.successes[task.name], strict=True)
        scores = [(value, normalized(task, value, success)) for value, success in pairs]
        if any(score is not None for _, score in scores):
            found[task.name] = [score for value, score in scores if score is not None and math.isfinite(value)]
    return found


def scored(evaluation: EvaluationRow) -> str:
    """Return an evaluation as a line of text."""
    returns = ", ".join(f"{task} {number(value)}" for task, value in evaluation.mean_return.items())
    return f"{evaluation.policy} at {evaluation.env_steps:,}: {returns}"
