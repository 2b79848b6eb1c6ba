"""Where the replay of a run lives: the specs of its shards, with the folders of their files and of their snapshots."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from cluster.plan.plan import Plan
from cluster.run.folder import RunFolder
from replay.shard import ShardSpec
from replay.store.locations import choose_folder


def shard_specs(plan: Plan, folder: RunFolder, live: Path | None = None, take: int = 1) -> tuple[ShardSpec, ...]:
    """Specs of all shards, with files in `live`, taken over for the `take`-th time.

    In serial execution there are none: what the run loses it makes again, identically.
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
    """Remove files of all but the first shards. They will not be taken over, and a later resume must not find them."""
    for found in live.glob("shard-*"):
        if found.name not in {f"shard-{index}" for index in range(keep)}:
            shutil.rmtree(found)


def live_folder(plan: Plan, folder: RunFolder) -> Path:
    """The folder for the shards' files; where a run that died has left some, that one. Room changes: ask once."""
    return choose_folder(plan.config.replay.directory, folder.path / "live", folder.id, plan.replay_bytes)
