"""Where the replay of a run lives: the specs of its shards, with the folders of their files and of their snapshots."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from cluster.plan import Plan
from cluster.run_folder import RunFolder
from replay.locations import choose_folder
from replay.shard import ShardSpec


def shard_specs(plan: Plan, folder: RunFolder) -> tuple[ShardSpec, ...]:
    """Specs of all shards. In serial execution they have no files: the run makes again what it loses, identically."""
    snapshot = folder.manifest.get("replay", "")
    specs = [
        replace(spec, run=folder.id, snapshots=folder.replay_url, snapshot=snapshot, take=folder.take)
        for spec in plan.shards
    ]
    if plan.config.execution == "serial":
        return tuple(specs)
    live = live_folder(plan, folder)
    return tuple(replace(spec, folder=str(live / f"shard-{spec.index}")) for spec in specs)


def clear_live(plan: Plan, folder: RunFolder) -> None:
    """Remove files of shards that will not be taken over, and would be out of date when a later resume found them."""
    live = live_folder(plan, folder)
    keep = 0 if plan.config.execution == "serial" else len(plan.shards)
    for found in live.glob("shard-*"):
        if found.name not in {f"shard-{index}" for index in range(keep)}:
            shutil.rmtree(found)


def live_folder(plan: Plan, folder: RunFolder) -> Path:
    """The folder of the shards' files; where a run that died has left some, that one."""
    return choose_folder(plan.config.replay.directory, folder.path / "live", folder.id, plan.replay_bytes)
