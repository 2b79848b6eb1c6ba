"""Code that the examples share: a short run in this process, which writes into a folder as every run does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster import PRESETS, Config, train
from dashboards.rows import EvaluationRow
from dashboards.sinks.records import read_evaluations


def config(folder: Path, tasks: tuple[str, ...], steps: int = 1500, **learner: Any) -> Config:
    """Return the configuration of a small agent, trained in lock step for `steps` environment steps of each task."""
    preset = PRESETS["quickstart"]()
    return replace(
        preset,
        tasks=tasks,
        steps=steps,
        name="example",
        runs_folder=str(folder),
        execution="serial",
        learner=replace(preset.learner, **learner),
        replay=replace(preset.replay, warmup=500),
        evaluation=replace(preset.evaluation, interval=0, episodes=3),
        checkpoint_interval=0,
    )


def trained(what: Config) -> list[EvaluationRow]:
    """Train; return the evaluations of the random policy and of the last policy. Raises RuntimeError if that fails."""
    if train(what, "quickstart") != 0:
        raise RuntimeError(f"the run in {what.runs_folder} did not end well; its console says why")
    return read_evaluations(Path(what.runs_folder) / what.name)
