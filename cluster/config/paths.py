"""Paths that hold wherever a process goes: environments may change its directory."""

from __future__ import annotations

import os
from dataclasses import replace

from cluster.config.schema import Config


def absolute(config: Config) -> Config:
    """A configuration with every path made absolute."""
    learner, replay, metrics, actors = config.learner, config.replay, config.metrics, config.actors
    runtime = {
        name: absolute_path(file)  # it may be resumed from elsewhere
        for name, file in actors.runtime.items()
    }
    return replace(
        config,
        runs_folder=absolute_path(config.runs_folder),
        origin=absolute_path(config.origin),
        ray_folder=absolute_path(config.ray_folder),
        learner=replace(learner, checkpoints=absolute_path(learner.checkpoints)),
        replay=replace(
            replay,
            directory=absolute_path(replay.directory),
            snapshots=absolute_path(replay.snapshots),
        ),
        metrics=replace(metrics, targets=absolute_path(metrics.targets)),
        actors=replace(actors, runtime=runtime),
    )


def absolute_path(path: str) -> str:
    """A path made absolute; a URL, or "", as it is."""
    return os.path.abspath(path) if path and "://" not in path else path
