"""Paths that hold wherever a process goes: environments may change its directory."""

from __future__ import annotations

import os
from dataclasses import replace

from cluster.config import Config
from cluster.errors import ConfigError


def absolute(config: Config) -> Config:
    """The same configuration, with every path of it absolute. Raises ConfigError for one that is no text."""
    learner, replay, metrics, actors = config.learner, config.replay, config.metrics, config.actors
    runtime = {
        name: absolute_path(f"--actors.runtime {name}", file)  # it may be resumed from elsewhere
        for name, file in actors.runtime.items()
    }
    return replace(
        config,
        runs_folder=absolute_path("--runs-folder", config.runs_folder),
        origin=absolute_path("--origin", config.origin),
        ray_folder=absolute_path("--ray-folder", config.ray_folder),
        learner=replace(learner, checkpoints=absolute_path("--learner.checkpoints", learner.checkpoints)),
        replay=replace(
            replay,
            directory=absolute_path("--replay.directory", replay.directory),
            snapshots=absolute_path("--replay.snapshots", replay.snapshots),
        ),
        metrics=replace(metrics, targets=absolute_path("--metrics.targets", metrics.targets)),
        actors=replace(actors, runtime=runtime),
    )


def absolute_path(option: str, path: str) -> str:
    """A path made absolute; a URL, or "", as it is. Raises ConfigError for one that is no text in UTF-8: a
    configuration is."""
    found = os.path.abspath(path) if path and "://" not in path else path
    try:
        found.encode()
    except UnicodeEncodeError:
        shown = found.encode(errors="backslashreplace").decode()
        raise ConfigError(f"{option} {shown} is not UTF-8: name another, or set PYTHONUTF8=1 if it is") from None
    return found
