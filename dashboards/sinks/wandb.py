"""Mirror of a run's numbers in Weights & Biases, with the same names as in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dashboards.events import Entry
from dashboards.rows import EvaluationRow, Row
from dashboards.sinks.records import flatten, numbers_of_evaluation, numbers_of_event, numbers_of_row

TIMEOUT_S = 30.0  # limit for the start, and for unsent rows at the end; `wandb sync` sends the rest later


class WandB:
    """Mirror that sends every number of a row under its slash-joined name, over env_steps. A process of wandb sends it.

    Args:
        folder: folder of the run. wandb also keeps the sent data there, in wandb/.
        id: an id that no other run ever has. A resumed run continues under its id.
        project: project or entity/project.

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
        # wandb's own step count must never go back; the steps of a resumed run may.
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
