"""Rows, stats and events with plain numbers. A test passes only the fields that matter to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from actors.reports import FleetCounts
from cluster.run.manifest import Manifest
from dashboards.events import Entry, Event
from dashboards.progress import Progress, ProgressState
from dashboards.rows import EvaluationRow, Row
from learner.reports import LearnerReport, Seconds
from replay.stats import LimiterStats, SamplerStats, ShardStats

TASK = "dmc/cartpole-swingup"


def limiter(**changes: Any) -> LimiterStats:
    return replace(LimiterStats(0, 0, 0, 1, 1.0, 0.0, 0.0, 0.0, 0.0, 0, 0), **changes)


def shard_stats(tasks: int = 1, **changes: Any) -> ShardStats:
    """Return the stats of a shard that is half full."""
    base = ShardStats(
        shard=0,
        pid=1,
        token="t",
        caught_up=True,
        limiter=limiter(),
        inserts_by_task=[1000] * tasks,
        transitions_by_task=[1000] * tasks,
        clipped_by_task=[0] * tasks,
        fill=0.5,
        bytes=10**9,
        node_available_bytes=10**9,
        node_total_bytes=10**10,
        repeated_pushes=0,
        bad_segments=0,
        bad_transitions=0,
        origin="empty",
        problem="",
    )
    return replace(base, **changes)


def learner_report(tasks: int = 1, **changes: Any) -> LearnerReport:
    return replace(LearnerReport(1000, {}, [1.0] * tasks, Seconds(), 1, 10, SamplerStats()), **changes)


def row(tasks: Sequence[str] = (TASK,), **changes: Any) -> Row:
    """Return the row of a run of these tasks before any actor has reported."""
    fleet = {"dmc": FleetCounts(1, 1, 0, 0)}
    made = Progress(tasks, 10, 1.0).row([], fleet, learner_report(len(tasks)), [shard_stats(len(tasks))])
    return replace(made, **changes)


def evaluation(returns: dict[str, list[float]] | None = None, **changes: Any) -> EvaluationRow:
    """Return a row of an evaluation, in which scores are returns divided by a thousand."""
    found = {TASK: [1.0]} if returns is None else returns
    means = {task: sum(values) / len(values) for task, values in found.items()}
    scores = {task: [value / 1000 for value in values] for task, values in found.items()}
    base = EvaluationRow(
        time=0.0,
        elapsed_s=0.0,
        env_steps=0,
        updates=0,
        policy="deterministic",
        mean_return=dict(means),
        success=dict.fromkeys(found),
        score={task: mean / 1000 for task, mean in means.items()},
        score_mean=None,
        score_iqm=None,
        returns={task: list(values) for task, values in found.items()},
        scores=scores,
        lengths={},
    )
    return replace(base, **changes)


def entry(event: Event, time: float = 0.0, session: int = 1) -> Entry:
    return Entry(time, 0.0, event, session)


def manifest(**changes: Any) -> Manifest:
    base = Manifest(
        env_steps=7,
        steps=10,
        updates=3,
        replay="",
        evaluations_begun=0,
        incarnation=0,
        tasks=[TASK],
        execution="distributed",
        progress=ProgressState([0], 0.0),
        time=0.0,
    )
    return replace(base, **changes)
