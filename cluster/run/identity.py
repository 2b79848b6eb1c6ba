"""The unique id of a run. Everything that a run keeps in shared memory, in Ray and at URLs is under this id."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from cluster.config.schema import Config
from cluster.errors import ConfigError
from cluster.run.registry import Registry


def run_id(path: Path) -> str:
    """Return the run's id: its name and a random number, made when the run begins."""
    if not has_id(path):
        write_id(path, f"{path.name[:80]}-{uuid.uuid4().hex[:12]}")
    return (path / "id").read_text()


def has_id(path: Path) -> bool:
    """Whether a folder has an id. An empty file is no id: all runs whose disk was full would have the same."""
    file = path / "id"
    return file.is_file() and bool(file.read_text())


def write_id(path: Path, name: str) -> None:
    """Write the id atomically."""
    temporary = path / f"id.{os.getpid()}.new"
    try:
        temporary.write_text(name)
        temporary.rename(path / "id")
    finally:
        temporary.unlink(missing_ok=True)


def places_by_id(config: Config) -> dict[str, str]:
    """Return the places outside a run's folder where it keeps its state under its id, by the options that name them."""
    places = {"--learner.checkpoints": config.learner.checkpoints, "--replay.snapshots": config.replay.snapshots}
    return {option: place for option, place in places.items() if place}


def keep_apart(config: Config, path: Path, registry: Registry) -> None:
    """Remove the id of a run whose folder is a copy of another run's, so that it gets its own.

    Raises ConfigError where checkpoints or snapshots are at a place that the id names: the copy has none there.
    """
    original = original_of(path, registry)
    if original is None:
        return
    for option, place in places_by_id(config).items():
        raise ConfigError(
            f"run {path.name} is a copy of {original}, and what both have in {option} {place} is that run's: go on "
            f"with that, or begin another with what it has learned by `brc add-task`"
        )
    shutil.rmtree(path / "live" / run_id(path), ignore_errors=True)  # replay's files as the copying found them
    (path / "id").unlink()


def original_of(path: Path, registry: Registry) -> Path | None:
    """Return the folder that this one is a copy of, if it still exists. A folder that was moved is no copy."""
    if not has_id(path):
        return None
    known, own = registry.read(path.name, "folder").folder, path.resolve()
    if known and Path(known).resolve() == own:
        return None
    others = [*([Path(known)] if known else []), *(file.parent for file in path.parent.glob("*/id"))]
    same = (other for other in others if other.resolve() != own and has_id(other))
    return next((other for other in same if run_id(other) == run_id(path)), None)
