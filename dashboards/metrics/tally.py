"""State of a run for metrics: restarts by cause, checkpoints, the newest evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from actors.causes import Cause
from dashboards.events import (
    ActorDied,
    Begun,
    Checkpoint,
    CheckpointFailed,
    Entry,
    EvaluatorDied,
    Failed,
    LearnerDied,
    Scaled,
    ShardDied,
)
from dashboards.rows import EvaluationRow, Row

PARTS = {ActorDied: "actor", ShardDied: "shard", LearnerDied: "learner", EvaluatorDied: "evaluator"}
COORDINATOR = ("coordinator", Cause.KILLED.value)
PartAndCause = tuple[str, str]


def none_yet() -> dict[PartAndCause, int]:
    """Return 0 for all series: Prometheus does not see the first increase of a series that begins with 1."""
    of_parts = [(part, cause.value) for part in PARTS.values() for cause in Cause if cause is not Cause.KILLED]
    return dict.fromkeys([COORDINATOR, *of_parts], 0)


@dataclass
class State:
    """State that metrics are made from.

    Attributes:
        row: newest row of metrics.jsonl; None before the first.
        restarts: counts by part and cause; restarted: time of the last restart.
        failed: 1 for the cause of the run's failure; empty if the run has not failed.
        published: the paper's values at the newest evaluation, by task.
    """

    budget: int
    updates_budget: int
    checkpoint_interval: int
    row: Row | None = None
    restarts: dict[PartAndCause, int] = field(default_factory=none_yet)
    restarted: dict[PartAndCause, float] = field(default_factory=dict)
    failed: dict[tuple[str], int] = field(default_factory=dict)
    begun_at: float | None = None
    scaled_at: float | None = None
    checkpoints: int = 0
    checkpoint_failures: int = 0
    checkpoint: Checkpoint | None = None
    checkpoint_at: float | None = None
    random: EvaluationRow | None = None
    evaluation: EvaluationRow | None = None
    published: dict[str, float | None] = field(default_factory=dict)


class Tally:
    """Keep the state. `published` returns the paper's value of a task at a number of environment steps, or None."""

    def __init__(self, state: State, published: Callable[[str, int], float | None] = lambda *_: None) -> None:
        self.state = state
        self.published = published

    def event(self, entry: Entry) -> None:
        state, event = self.state, entry.event
        if isinstance(event, (ActorDied, ShardDied, LearnerDied, EvaluatorDied)):
            self._restarted((PARTS[type(event)], event.cause.value), entry.time)
        elif isinstance(event, Begun):
            state.begun_at, state.failed = entry.time, {}
            if event.how == "coordinator_back":
                self._restarted(COORDINATOR, entry.time)
        elif isinstance(event, Failed):
            state.failed = {(event.cause.value,): 1}
        elif isinstance(event, Scaled):
            state.scaled_at = entry.time
        elif isinstance(event, Checkpoint):
            state.checkpoint, state.checkpoint_at = event, entry.time
            state.checkpoints += 1
        elif isinstance(event, CheckpointFailed):
            state.checkpoint_failures += 1

    def _restarted(self, labels: PartAndCause, at: float) -> None:
        self.state.restarts[labels] += 1
        self.state.restarted[labels] = at

    def evaluation(self, row: EvaluationRow) -> None:
        if row.is_random:
            self.state.random = row
        else:
            self.state.evaluation = row
            self.state.published = {task: self.published(task, row.env_steps) for task in row.mean_return}
