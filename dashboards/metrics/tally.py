"""Counts of what happened in a run, for metrics: restarts by cause, checkpoints, the newest evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dashboards.metrics.samples import State

DEATHS = {
    "actor_died": "actor",
    "shard_died": "shard",
    "learner_died": "learner",
    "evaluator_died": "evaluator",
}
BEGINNINGS = ("start", "resume", "coordinator_back")
# By words in the reason of a death; the first that is found.
CAUSES = (
    ("its node has died", "node lost"),
    ("unavailable", "out of reach"),
    ("OutOfMemory", "out of memory"),
    ("it has grown to", "out of memory"),
    ("has not made a step", "hung"),
    ("not answer", "hung"),
    ("bad numbers", "bad numbers"),
    ("_loss became ", "loss not finite"),  # as learner.learner.Trained says
    ("Traceback", "raised"),
)
OTHER = "died"
KILLED = ("coordinator", "killed")


class Tally:
    """What events and evaluations add to the newest row. `published` gives the paper's value of a task at a number of
    environment steps, or None."""

    def __init__(
        self,
        budget: int,
        updates_budget: int,
        checkpoint_interval: int,
        published: Callable[[str, int], float | None] = lambda *_: None,
    ) -> None:
        self.published = published
        causes = dict.fromkeys([*(cause for _, cause in CAUSES), OTHER])
        # All of them from the first on: Prometheus does not see the growth of what begins with 1.
        restarts = [KILLED, *((part, cause) for part in DEATHS.values() for cause in causes)]
        self.found: State = {
            "budget": budget,
            "updates_budget": updates_budget,
            "checkpoint_interval": checkpoint_interval,
            "restarts": dict.fromkeys(restarts, 0),
            "restarted": {},
            "failed": {},
            "checkpoints": 0,
            "checkpoint_failures": 0,
        }

    def event(self, row: dict[str, Any]) -> None:
        kind = row["event"]
        if kind in DEATHS or kind == "coordinator_back":
            labels = KILLED if kind == "coordinator_back" else (DEATHS[kind], cause_of(row["reason"]))
            self.found["restarts"][labels] += 1
            self.found["restarted"][labels] = row["time"]
        if kind in BEGINNINGS:
            self.found["begun"], self.found["failed"] = row, {}
        elif kind == "failed":
            self.found["failed"] = {(cause_of(row["reason"]),): 1}
        elif kind == "scaled":
            self.found["scaled"] = row
        elif kind == "checkpoint":
            self.found["checkpoint"] = row
            self.found["checkpoints"] += 1
        elif kind == "checkpoint_failed":
            self.found["checkpoint_failures"] += 1

    def evaluation(self, row: dict[str, Any]) -> None:
        if row["policy"] == "random":
            self.found["random"] = row
        else:
            self.found["evaluation"] = row
            self.found["published"] = {task: self.published(task, row["env_steps"]) for task in row["return"]}

    def state(self, row: dict[str, Any]) -> State:
        return {"row": row, **self.found}


def cause_of(reason: str) -> str:
    """One of a few words for why a part died."""
    return next((cause for words, cause in CAUSES if words in reason), OTHER)
