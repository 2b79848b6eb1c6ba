"""Declarations of all metrics of a run. The exporter serves them; dashboards and alerts may use them.

A metric is made from the newest row of metrics.jsonl and from a Tally of events and evaluations. The configuration
bounds the labels: benchmarks, tasks and shards, never actors or processes. Every series also has the label `run`.
Counters begin with 0 in each coordinator process, except lasting counters. They do not go back when a part dies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from dashboards.events import Checkpoint
from dashboards.metrics.of_parts import PARTS
from dashboards.metrics.samples import (
    TASK,
    Sample,
    Samples,
    bottleneck,
    by_task,
    counter,
    gauge,
    keyed,
    number,
    of_row,
    row_by_task,
    spread,
)
from dashboards.metrics.tally import State


def suite_score(state: State) -> Iterable[Sample]:
    """Return the scores of the newest evaluation over all tasks."""
    row = state.evaluation
    return [] if row is None else [(("mean",), row.score_mean), (("iqm",), row.score_iqm)]


def of_checkpoint(values: Callable[[Checkpoint], Mapping[str, float]]) -> Samples:
    """Return samples of the newest checkpoint by part."""
    return lambda state: [
        ((part,), value) for part, value in (values(state.checkpoint) if state.checkpoint else {}).items()
    ]


RUN = (
    # The run
    gauge("run_steps", "short", (), "Environment steps of the slowest task.", of_row(lambda row: row.env_steps)),
    gauge(
        "run_steps_budget",
        "short",
        (),
        "Environment steps of each task at which the run ends.",
        number(lambda state: state.budget),
    ),
    gauge("run_updates", "short", (), "Updates that the agent has learned from.", of_row(lambda row: row.updates)),
    gauge(
        "run_updates_budget", "short", (), "Updates at which the run ends.", number(lambda state: state.updates_budget)
    ),
    gauge(
        "run_elapsed_seconds",
        "s",
        (),
        "Time that the run has taken, over all its lives.",
        of_row(lambda row: row.elapsed_s),
    ),
    gauge(
        "run_left_seconds",
        "s",
        (),
        "Time until the budget is met, at the recent speed.",
        of_row(lambda row: row.seconds_left),
    ),
    gauge(
        "report_timestamp_seconds",
        "dateTimeAsIso",
        (),
        "When the coordinator last heard all parts.",
        of_row(lambda row: row.time),
    ),
    gauge(
        "bottleneck",
        "bool",
        ("side",),
        "1 for the side that the other waits for; limiter where both wait by turns.",
        bottleneck,
    ),
    gauge(
        "wait_ratio",
        "percentunit",
        ("side",),
        "Share of its time that a side waits for the other.",
        keyed(lambda row: {"learner": row.learner_wait_share, "actors": row.actor_wait_share}),
    ),
    # Learning
    counter(
        "environment_steps",
        "short",
        TASK,
        "Environment steps that replay has taken.",
        row_by_task(lambda row: row.env_steps_by_task),
    ),
    counter("episodes", "short", TASK, "Training episodes that have ended.", row_by_task(lambda row: row.episodes)),
    counter(
        "bad_episodes",
        "short",
        TASK,
        "Training episodes that were dropped, as a reward or an observation was NaN, infinite or beyond 1e15.",
        row_by_task(lambda row: row.bad_episodes),
    ),
    counter(
        "clipped_observations",
        "short",
        TASK,
        "Numbers in observations that were brought within float16's range, of shards that live.",
        row_by_task(lambda row: row.clipped),
    ),
    gauge(
        "episode_return",
        "short",
        (*TASK, "statistic"),
        "Undiscounted return of recent training episodes: mean, p10, p50, p90.",
        spread,
    ),
    gauge(
        "episode_success",
        "percentunit",
        TASK,
        "Share of recent training episodes with success.",
        row_by_task(lambda row: row.success),
    ),
    gauge(
        "evaluation_return",
        "short",
        TASK,
        "Mean return of the deterministic policy in the newest evaluation.",
        by_task(lambda state: state.evaluation.mean_return if state.evaluation else {}),
    ),
    gauge(
        "evaluation_success",
        "percentunit",
        TASK,
        "Share of episodes with success in the newest evaluation.",
        by_task(lambda state: state.evaluation.success if state.evaluation else {}),
    ),
    gauge(
        "evaluation_score",
        "percentunit",
        TASK,
        "Normalised score in the newest evaluation.",
        by_task(lambda state: state.evaluation.score if state.evaluation else {}),
    ),
    gauge(
        "evaluation_steps",
        "short",
        (),
        "Environment steps at the newest evaluation.",
        number(lambda state: state.evaluation.env_steps if state.evaluation else None),
    ),
    gauge(
        "suite_score",
        "percentunit",
        ("statistic",),
        "Normalised score over all tasks: mean, iqm.",
        suite_score,
    ),
    gauge(
        "random_return",
        "short",
        TASK,
        "Mean return of the random policy.",
        by_task(lambda state: state.random.mean_return if state.random else {}),
    ),
    gauge(
        "published",
        "short",
        TASK,
        "The paper's curve at the steps of the newest evaluation: return, for MetaWorld success.",
        by_task(lambda state: state.published),
    ),
)
KEPT = (
    # Failures, restarts and checkpoints
    gauge(
        "begun_timestamp_seconds",
        "dateTimeAsIso",
        (),
        "When the run was started, resumed, or its coordinator was.",
        number(lambda state: state.begun_at),
    ),
    gauge(
        "failed",
        "bool",
        ("cause",),
        "1 when the run has failed, in its last answer.",
        lambda state: state.failed.items(),
    ),
    counter(
        "restarts",
        "short",
        ("part", "cause"),
        "Parts that died and were begun again.",
        lambda state: state.restarts.items(),
        lasting=True,
    ),
    gauge(
        "restart_timestamp_seconds",
        "dateTimeAsIso",
        ("part", "cause"),
        "When one last did.",
        lambda state: state.restarted.items(),
    ),
    gauge(
        "scaled_timestamp_seconds",
        "dateTimeAsIso",
        (),
        "When another number of actors was last asked for.",
        number(lambda state: state.scaled_at),
    ),
    counter("checkpoints", "short", (), "Checkpoints written.", number(lambda state: state.checkpoints), lasting=True),
    counter(
        "checkpoint_failures",
        "short",
        (),
        "Checkpoints that could not be written.",
        number(lambda state: state.checkpoint_failures),
        lasting=True,
    ),
    gauge(
        "checkpoint_steps",
        "short",
        (),
        "Environment steps at the newest checkpoint.",
        number(lambda state: state.checkpoint.env_steps if state.checkpoint else None),
    ),
    gauge(
        "checkpoint_interval_steps",
        "short",
        (),
        "Environment steps between checkpoints; 0 for none.",
        number(lambda state: state.checkpoint_interval),
    ),
    gauge(
        "checkpoint_timestamp_seconds",
        "dateTimeAsIso",
        (),
        "When the newest checkpoint was whole.",
        number(lambda state: state.checkpoint_at),
    ),
    gauge(
        "checkpoint_seconds",
        "s",
        ("part",),
        "Time that it took: learner and replay to write, and to commit, which is to see that it is whole and on disk.",
        of_checkpoint(lambda checkpoint: checkpoint.part_seconds),
    ),
    gauge(
        "checkpoint_bytes",
        "bytes",
        ("part",),
        "Bytes that it took: the learner's state, and what replay's snapshot has added.",
        of_checkpoint(lambda checkpoint: checkpoint.part_bytes),
    ),
)
METRICS = (*RUN, *PARTS, *KEPT)
