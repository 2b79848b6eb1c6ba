"""Mirrors a run's numbers to Weights & Biases: the same names as TensorBoard's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dashboards.events import Entry
from dashboards.rows import EvaluationRow, Row
from dashboards.sinks.records import flatten, numbers_of_evaluation, numbers_of_event, numbers_of_row

TIMEOUT_S = 30.0  # to begin, and at the end for what is not sent yet: `wandb sync` does it later


class WandB:
    """Every number of a row under its slash-joined name, over env_steps. Rows are sent by a process of wandb's own.

    Args:
        folder: of the run: what is sent is kept there too, in wandb/.
        id: that no other run ever has; one that goes on with it goes on there.
        project: or entity/project.

    Raises wandb.Error when the server does not take the run.
    """

    def __init__(self, folder: Path, name: str, id: str, project: str, config: dict[str, Any]) -> None:
        import wandb

        entity, _, project = project.rpartition("/")
        settings = wandb.Settings(
            init_timeout=TIMEOUT_S,
            finish_timeout=TIMEOUT_S,
            finish_timeout_raises=False,
            console="off",
            silent=True,
            disable_git=True,
        )
        self.run = wandb.init(
            dir=str(folder),
            entity=entity or None,
            project=project,
            id=id,
            name=name,
            resume="allow",
            config=config,
            settings=settings,
        )
        # Its own count of steps must never go back, and a resumed run does.
        self.run.define_metric("*", step_metric="env_steps")

    def event(self, entry: Entry) -> None:
        if numbers := numbers_of_event(entry.event):
            self.run.log(dict(flatten(numbers)))

    def metrics(self, row: Row) -> None:
        self.run.log(dict(flatten(numbers_of_row(row))))

    def evaluation(self, row: EvaluationRow) -> None:
        self.run.log(dict(flatten(numbers_of_evaluation(row))))

    def close(self) -> None:
        self.run.finish()
