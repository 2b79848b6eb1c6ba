"""Checkpoints: one folder each, complete or absent, verified before anything is read from them.

    checkpoints/000000012000/manifest.json    counters, task list, checksum and size of every other file
                             learner.pt       Learner.state_dict
                             serial.pt        actor and environment state, lock-step runs only

The manifest also names the snapshot of replay that belongs to it (replay/snapshot.py). A checkpoint is written into a
folder with a leading dot and renamed when all of it is on disk.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

FORMAT = "brc-checkpoint-3"


class CheckpointError(Exception):
    """A checkpoint that is missing or damaged; the message names the file. Nothing is changed or removed."""


def begin(folder: Path, env_steps: int) -> Path:
    """An empty folder to write the checkpoint of `env_steps` into; `commit` makes it one. Removes unfinished ones."""
    temporary = folder / f".{env_steps:012d}"
    for unfinished in folder.glob(".[0-9]*"):
        discard(unfinished)
    temporary.mkdir(parents=True, exist_ok=True)
    return temporary


def discard(temporary: Path) -> None:
    """Remove a checkpoint that is not to be finished, as far as that can be done."""
    shutil.rmtree(temporary, ignore_errors=True)


def commit(temporary: Path, manifest: dict[str, Any], keep: int) -> Path:
    """Checksum, write the manifest, rename into place, and remove all but the newest `keep` checkpoints.

    Another checkpoint of the same step, as when a run is stopped twice in a place, gets a number behind its name.
    """
    files = {}
    for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
        files[str(file.relative_to(temporary))] = {"bytes": file.stat().st_size, "crc32": checksum(file)}
    path = temporary / "manifest.json"
    path.write_text(json.dumps({"format": FORMAT, "files": files} | manifest, indent=1))
    for file in temporary.rglob("*"):
        sync(file)
    name = temporary.name.removeprefix(".")
    final = temporary.with_name(name)
    for number in itertools.count(1):
        if not final.exists():
            break
        final = temporary.with_name(f"{name}.{number:03d}")
    temporary.rename(final)
    sync(final.parent)
    for old in checkpoints(final.parent)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir()) if folder.is_dir() else []


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; CheckpointError when that is damaged."""
    path = checkpoint / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {way_out(checkpoint)}") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a {FORMAT} manifest; {way_out(checkpoint)}")
    return manifest


def verify(checkpoint: Path, manifest: dict[str, Any]) -> None:
    """Check that every file is as it was written. Reads all of them: a second for a gigabyte or so."""
    for name, expected in manifest["files"].items():
        file = checkpoint / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing; {way_out(checkpoint)}")
        if file.stat().st_size != expected["bytes"] or checksum(file) != expected["crc32"]:
            raise CheckpointError(f"{file} is damaged: it is not what was written; {way_out(checkpoint)}")


def way_out(checkpoint: Path) -> str:
    earlier = [path for path in checkpoints(checkpoint.parent) if path < checkpoint]
    if earlier:
        return f"move {checkpoint} away to resume from {earlier[-1].name}"
    return "there is no earlier checkpoint; start a new run under another name"


def checksum(file: Path) -> int:
    value = 0
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            value = zlib.crc32(chunk, value)
    return value


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
