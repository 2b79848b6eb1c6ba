"""Makes the paths of a configuration absolute, since environments may change the directory, and checks them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from cluster.config.schema import Config
from cluster.errors import ConfigError
from replay.store.locations import existing


def absolute(config: Config) -> Config:
    """Return a configuration with every path made absolute."""
    learner, replay, metrics, actors = config.learner, config.replay, config.metrics, config.actors
    runtime = {
        name: absolute_path(file)  # the run may be resumed from another folder
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
            demonstrations=tuple(absolute_demonstrations(given) for given in replay.demonstrations),
        ),
        metrics=replace(metrics, targets=absolute_path(metrics.targets)),
        actors=replace(actors, runtime=runtime),
    )


def absolute_path(path: str) -> str:
    """Return a path made absolute; a URL or "" stays unchanged."""
    return os.path.abspath(path) if path and "://" not in path else path


def absolute_demonstrations(given: str) -> str:
    """Return PATH, or the path in TASK=PATH, made absolute if it is there; ids of datasets stay unchanged."""
    if os.path.exists(given) or (given.endswith(".npz") and "=" not in given):
        return absolute_path(given)
    name, mark, path = given.partition("=")
    return f"{name}={absolute_path(path)}" if mark and (os.path.exists(path) or path.endswith(".npz")) else given


def check_writable(flag: str, folder: str) -> None:
    """Check that this user can write to the folder that an option names, or can create it. Raises ConfigError."""
    parent = existing(Path(folder))
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigError(f"{flag} {folder}: {parent} is not a folder that this user can write to; name another")
