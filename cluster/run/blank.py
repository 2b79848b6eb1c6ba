"""Blank runs, which ended before they had learned anything: their names are free again, and their replay is removed."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.config.schema import Config
from cluster.run.identity import run_id
from cluster.run.registry import FIELDS, Registry
from dashboards.sinks import records
from learner.state.checkpoint import Checkpoints
from replay.store.locations import places

# Files that a run writes into its folder before its first update. The lock is not listed: the remover holds it.
WRITTEN = (
    "config.yaml",
    "id",
    "registry",
    "console.log",
    "events.jsonl",
    "metrics.jsonl",
    "eval.jsonl",
    "tensorboard",
    "report.html",
    "checkpoints",
    "replay",
    "live",
)


def is_blank(path: Path, checkpoints: Checkpoints) -> bool:
    """Whether a run that is over has no checkpoint, has never written a checkpoint, and has made no update."""
    if checkpoints.names() or any(row.get("updates") for row in records.read(path / "metrics.jsonl")):
        return False
    return not any(entry.event.kind == "checkpoint" for entry in records.read_events(path))


def clear(config: Config, path: Path, registry: Registry) -> None:
    """Remove the files of a blank run, so that another run can begin in its place. This process holds its lease."""
    give_up_replay(config, path)
    for name in WRITTEN:
        found = path / name
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink(missing_ok=True)
    registry.write(path.name, **dict.fromkeys(FIELDS, ""))


def give_up_replay(config: Config, path: Path) -> None:
    """Remove the files of a run's replay on this machine: without a checkpoint no run can go on with them."""
    for place in places(config.replay.directory, path / "live", run_id(path)):
        shutil.rmtree(place, ignore_errors=True)


def way_on(path: Path, checkpoints: Checkpoints) -> str:
    """Return what the user can do about a run without a checkpoint."""
    return "leave out --resume to begin it anew" if is_blank(path, checkpoints) else "choose another --name"
