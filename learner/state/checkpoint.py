"""Checkpoints: one folder each, on a disk or at any URL that fsspec supports. They are verified before they are read.

    <root>/000000012000/manifest.json     counters, task list, size and checksum of every other file
                        learner.json      Learner.counters
                        .metadata, *.distcp   Learner.tensors, as torch.distributed.checkpoint writes them, by rank
                        serial.pt         actor and environment state, lock-step runs only

The manifest also names the replay snapshot that belongs to the checkpoint (replay/snapshots/snapshot.py). It is written
last and atomically: a folder without a manifest is not a checkpoint.
"""

from __future__ import annotations

import itertools
import json
import os
import zlib
from contextlib import suppress
from typing import Any

from replay.json_text import json_text
from replay.urls import base, is_local, names_in, open_url, remove

FORMAT = "brc-checkpoint-4"
MANIFEST = "manifest.json"
NEEDED = ("learner.json", ".metadata")


class CheckpointError(Exception):
    """A checkpoint is missing or damaged; the message names the file. Nothing is changed or removed."""


class Checkpoints:
    """Checkpoints of one run."""

    def __init__(self, url: str) -> None:
        self.files, self.root = open_url(url)
        self.is_local = is_local(self.files)

    def begin(self, env_steps: int) -> str:
        """Make the folder of a new checkpoint at `env_steps` and return its name; `commit` completes it. Remove
        unfinished checkpoints.

        If there are several at one step, as when a run is stopped twice at that step, later names get a number.
        """
        for name in self._folders():
            if not self.files.exists(f"{self.root}/{name}/{MANIFEST}"):
                self.discard(name)
        taken, first = set(self._folders()), f"{env_steps:012d}"
        names = itertools.chain([first], (f"{first}.{number:03d}" for number in itertools.count(1)))
        name = next(name for name in names if name not in taken)
        self.files.makedirs(f"{self.root}/{name}", exist_ok=True)
        return name

    def discard(self, name: str) -> None:
        """Remove a checkpoint, ignoring OSError. The manifest goes first: the rest alone does not count as complete."""
        with suppress(OSError):
            if self.files.exists(f"{self.root}/{name}/{MANIFEST}"):
                self.files.rm_file(f"{self.root}/{name}/{MANIFEST}")
            remove(self.files, f"{self.root}/{name}")

    def commit(self, name: str, manifest: dict[str, Any], keep: int) -> int:
        """Write the manifest of the files in the folder, and remove all but the newest `keep` checkpoints. Return the
        bytes of these files.

        Raises OSError when a needed file is missing, or the folder cannot be written to.

        Local files are synced to disk first, and the manifest holds their sizes and checksums. For remote files it
        holds sizes only: reading them again would take longer than writing them, and the remote store checks uploads.
        """
        folder = f"{self.root}/{name}"
        self.files.invalidate_cache()
        found = sorted(path for path in self.files.find(folder) if base(path) != MANIFEST)
        for needed in NEEDED:  # .metadata is written when all ranks' files are
            if f"{folder}/{needed}" not in found:
                raise OSError(f"{folder} lacks {needed}: the learner's state is not all there")
        files = {path[path.rindex(name) + len(name) + 1 :]: self._describe(path) for path in found}
        text = json_text({"format": FORMAT, "files": files} | manifest, indent=1).encode()
        if self.is_local:
            with self.files.open(f"{folder}/{MANIFEST}.part", "wb") as file:
                file.write(text)
            sync(f"{folder}/{MANIFEST}.part")
            os.replace(f"{folder}/{MANIFEST}.part", f"{folder}/{MANIFEST}")
            sync(folder)
        else:
            self.files.pipe_file(f"{folder}/{MANIFEST}", text)
        for old in self.names()[:-keep]:
            self.discard(old)
        return sum(file["bytes"] for file in files.values())

    def names(self) -> list[str]:
        """Return the names of complete checkpoints, oldest first."""
        return [name for name in self._folders() if self.files.exists(f"{self.root}/{name}/{MANIFEST}")]

    def url(self, name: str) -> str:
        """Return the folder of a checkpoint as a path or URL for torch.distributed.checkpoint."""
        return f"{self.root}/{name}" if self.is_local else str(self.files.unstrip_protocol(f"{self.root}/{name}"))

    def open(self, name: str, file: str, mode: str) -> Any:
        return self.files.open(f"{self.root}/{name}/{file}", mode)

    def manifest(self, name: str) -> dict[str, Any]:
        """Return the manifest of a checkpoint. Raises CheckpointError when it cannot be read or has another format."""
        path = f"{self.root}/{name}/{MANIFEST}"
        try:
            manifest: dict[str, Any] = json.loads(self.files.cat_file(path))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); {self.way_out(name)}") from error
        if manifest.get("format") != FORMAT:
            form = manifest.get("format", "none")
            raise CheckpointError(
                f"{path} has the format {form}, and this version reads {FORMAT}: use the version that wrote it, or "
                f"{self.way_out(name)}"
            )
        return manifest

    def verify(self, name: str) -> None:
        """Check that every file is as it was written, or raise CheckpointError. Local files are read whole, which takes
        about a second per gigabyte."""
        for file, expected in self.manifest(name)["files"].items():
            path = f"{self.root}/{name}/{file}"
            if not self.files.isfile(path):
                raise CheckpointError(f"{path} is missing; {self.way_out(name)}")
            if self._describe(path) != expected:
                raise CheckpointError(f"{path} is damaged: it is not what was written; {self.way_out(name)}")

    def way_out(self, name: str) -> str:
        earlier = [other for other in self.names() if other < name]
        if earlier:
            return f"move {self.root}/{name} away to resume from {earlier[-1]}"
        return "there is no earlier checkpoint; start a new run under another name"

    def _folders(self) -> list[str]:
        return [name for name in names_in(self.files, self.root) if name[:1].isdigit()]

    def _describe(self, path: str) -> dict[str, int]:
        if not self.is_local:
            return {"bytes": self.files.size(path)}
        sync(path)
        return {"bytes": os.path.getsize(path), "crc32": checksum(path)}


def checksum(path: str) -> int:
    value = 0
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 22):
            value = zlib.crc32(chunk, value)
    return value


def sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
