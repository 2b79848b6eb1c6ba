"""A shard's content in a folder: one .npy file per array, and state.json with counters and checksums."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from replay.rows import Rows
from replay.storage import Storage

FORMAT = "brc-replay-1"


class SnapshotError(Exception):
    """A snapshot that is missing, damaged or of another shape; the message names the file."""


def save(folder: Path, storage: Storage, counters: dict[str, Any]) -> None:
    """Write the used rows of every task, then state.json. The caller makes the folder atomic (learner/checkpoint)."""
    folder.mkdir(parents=True, exist_ok=True)
    checksums = {}
    for task, ring in enumerate(storage.rings):
        for name, array in zip(Rows._fields, ring.rows, strict=True):
            file = folder / f"task-{task}-{name}.npy"
            used = array[: ring.used]
            np.save(file, used)
            checksums[file.name] = checksum(used)
    state = {"format": FORMAT, "storage": storage.state(), "counters": counters, "checksums": checksums}
    (folder / "state.json").write_text(json.dumps(state))


def load(folder: Path, storage: Storage) -> dict[str, Any]:
    """Fill `storage` from `folder` and return the counters that were saved with it."""
    file = folder / "state.json"
    try:
        state = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SnapshotError(f"{file} cannot be read: {error}") from error
    if state.get("format") != FORMAT:
        raise SnapshotError(f"{file} is not a {FORMAT} snapshot")
    for task, ring in enumerate(storage.rings):
        for name, array in zip(Rows._fields, ring.rows, strict=True):
            file = folder / f"task-{task}-{name}.npy"
            try:
                saved = np.load(file)
            except (OSError, ValueError, EOFError) as error:
                raise SnapshotError(f"{file} cannot be read: {error}") from error
            if saved.shape[1:] != array.shape[1:] or saved.dtype != array.dtype or len(saved) > len(array):
                raise SnapshotError(
                    f"{file} holds {saved.dtype} {saved.shape}, which does not fit into {array.dtype} {array.shape}"
                )
            if checksum(saved) != state["checksums"][file.name]:
                raise SnapshotError(f"{file} is damaged: its checksum does not match state.json")
            array[: len(saved)] = saved
    storage.load_state(state["storage"])
    counters: dict[str, Any] = state["counters"]
    return counters


def checksum(array: np.ndarray) -> int:
    """CRC-32 of a contiguous array's bytes."""
    return zlib.crc32(array.view(np.uint8).data) if array.size else 0
