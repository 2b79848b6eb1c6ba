"""The specs of a run's shards, with the folders of their files and of their snapshots."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from cluster.plan.plan import Plan
from cluster.run.folder import RunFolder
from replay.shard import ShardSpec
from replay.store.locations import choose_folder


def shard_specs(plan: Plan, folder: RunFolder, live: Path | None = None, take: int = 1) -> tuple[ShardSpec, ...]:
    """Return the specs of all shards, with files in `live`, taken over for the `take`-th time.

    In serial execution there are no files: the run makes what it loses again, identically.
    """
    snapshot = folder.manifest.replay if folder.manifest else ""
    return tuple(
        replace(
            spec,
            run=folder.id,
            folder="" if live is None else str(live / f"shard-{spec.index}"),
            snapshots=folder.replay_url,
            snapshot=snapshot,
            take=take,
        )
        for spec in plan.shards
    )


def clear_live(live: Path, keep: int) -> None:
    """Remove the files of all shards but the first `keep`: no shard takes them over, and no resume must find them."""
    for found in live.glob("shard-*"):
        if found.name not in {f"shard-{index}" for index in range(keep)}:
            shutil.rmtree(found)


def live_folder(plan: Plan, folder: RunFolder) -> Path:
    """Return the folder for the shards' files; if a dead run has left files, their folder. Call once: room changes."""
    return choose_folder(plan.config.replay.directory, folder.path / "live", folder.id, plan.replay_bytes)
