"""Incremental snapshots of shards, in a folder or at any URL that fsspec supports, written while the shard works.

    <root>/<snapshot>/shard-<k>.json    counters, and the list of pieces that hold the rows, each with its checksum
           packs/<k>-<token>.pack       the pieces that were new at one snapshot, one after another
           homes/<k>                    token of the files, on any node, that the shard used last

A piece is consecutive whole segments of one task, packed as in the ring, followed by their flags. It is written once;
later snapshots refer to it as long as the ring holds any of its rows. A snapshot is complete when the JSON files of all
its shards exist. Existing files are never changed, so a failed snapshot leaves earlier ones whole.
"""

from __future__ import annotations

import json
import os
import re
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from replay.json_text import json_text
from replay.store.ring import TaskRing, row_stride
from replay.store.rows import LAST
from replay.store.storage import Storage, spec_from_json
from replay.urls import is_local, names_in, open_url, remove

FORMAT = "brc-replay-3"
PIECE_BYTES = 4 << 20
MANIFEST = re.compile(r"shard-(\d+)\.json")  # file name of a manifest


class SnapshotError(Exception):
    """A snapshot is missing, is damaged or does not fit; the message names the file."""


class Piece(NamedTuple):
    """Rows [first, stop) of a task, which are `segments` whole segments: `bytes` bytes at `offset` of a pack."""

    pack: str
    offset: int
    bytes: int
    task: int
    first: int
    stop: int
    segments: int
    crc: int


class Place:
    """The folder or URL with the snapshots of a run."""

    def __init__(self, url: str) -> None:
        self.files, self.root = open_url(url)
        self.is_local = is_local(self.files)

    def snapshots(self) -> list[str]:
        """Return the names of complete snapshots, oldest first."""
        return [name for name in names_in(self.files, self.root) if self._is_whole(name)]

    def _is_whole(self, name: str) -> bool:
        """Whether all shards have written their manifests. The pieces are not checked."""
        found = [match for file in names_in(self.files, f"{self.root}/{name}") if (match := MANIFEST.fullmatch(file))]
        try:
            return bool(found) and len(found) >= self.manifest(name, int(found[0][1]))["shards"]
        except SnapshotError:
            return False

    def manifests(self, name: str) -> list[dict[str, Any]]:
        """Return the manifests of all shards of a snapshot."""
        first = self.manifest(name, 0)
        return [first, *(self.manifest(name, shard) for shard in range(1, first["shards"]))]

    def manifest(self, name: str, shard: int) -> dict[str, Any]:
        path = f"{self.root}/{name}/shard-{shard}.json"
        try:
            saved = json.loads(self.files.cat_file(path))
            body = saved["body"]
            if saved["crc32"] != zlib.crc32(json.dumps(body).encode()):  # infinities of old files included
                raise SnapshotError(f"{path} is damaged: it does not match its checksum")
        except FileNotFoundError:
            raise SnapshotError(f"{path} is missing") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SnapshotError(f"{path} cannot be read: {error}") from error
        if body.get("format") != FORMAT:
            raise SnapshotError(
                f"{path} has the format {body.get('format')}, and this version reads {FORMAT}: use the version that "
                "wrote it"
            )
        result: dict[str, Any] = body
        return result

    def write_manifest(self, name: str, shard: int, body: dict[str, Any]) -> None:
        text = json_text({"crc32": zlib.crc32(json_text(body).encode()), "body": body}).encode()
        path = f"{self.root}/{name}/shard-{shard}.json"
        if self.is_local:  # elsewhere a file appears only when it is complete
            self._write(path + ".part", text)
            os.replace(path + ".part", path)
        else:
            self._write(path, text)

    def _write(self, path: str, data: bytes) -> None:
        with self.open_new(path) as file:
            file.write(data)
            self.sync(file)

    def home(self, shard: int) -> str | None:
        """Return the token of the files that a shard used last; None if it cannot be read."""
        try:
            text: bytes = self.files.cat_file(f"{self.root}/homes/{shard}")
        except Exception:  # any error of any file system: the caller then trusts the files that exist
            return None
        return text.decode()

    def move_in(self, shard: int, token: str) -> None:
        """Record the token of the files that a shard uses now. Its files on other nodes are then out of date."""
        self._write(f"{self.root}/homes/{shard}", token.encode())

    def open_new(self, path: str) -> Any:
        self.files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        return self.files.open(path, "wb")

    def sync(self, file: Any) -> None:
        """Sync a local file to disk. On other file systems, closing a file makes it persistent."""
        if self.is_local:
            file.flush()
            os.fsync(file.fileno())

    def read(self, manifest: dict[str, Any], pieces: list[Piece]) -> Iterator[tuple[Piece, np.ndarray, np.ndarray]]:
        """Yield (piece, packed rows, flags) of each piece. Raises SnapshotError at a missing or damaged piece."""
        spec = spec_from_json(manifest["spec"])
        for piece in pieces:
            path = f"{self.root}/packs/{piece.pack}"
            try:
                data = self.files.cat_file(path, start=piece.offset, end=piece.offset + piece.bytes)
            except FileNotFoundError:
                raise SnapshotError(f"{path} is missing") from None
            except (OSError, ValueError) as error:
                raise SnapshotError(f"{path} cannot be read: {error}") from error
            if len(data) != piece.bytes or zlib.crc32(data) != piece.crc:
                raise SnapshotError(
                    f"{path} is damaged: bytes {piece.offset} to {piece.offset + piece.bytes}, rows {piece.first} to "
                    f"{piece.stop} of {spec.tasks[piece.task]}, do not match their checksum"
                )
            content = np.frombuffer(data, np.uint8)
            count = piece.stop - piece.first
            stride = row_stride(spec.observation_shapes[piece.task], spec.dtype, spec.action_size)
            yield piece, content[: count * stride].reshape(count, stride), content[count * stride :]

    def verify(self, name: str) -> None:
        """Read a whole snapshot. Raises SnapshotError, naming the file, if any is missing or damaged."""
        for manifest in self.manifests(name):
            for _ in self.read(manifest, pieces_of(manifest)):
                pass

    def prune(self, keep: list[str]) -> None:
        """Remove all snapshots but these, and the packs that these do not need. No snapshot may be in progress."""
        found = names_in(self.files, self.root)
        if not found:
            return
        needed = {piece.pack for name in keep for manifest in self.manifests(name) for piece in pieces_of(manifest)}
        for name in found:
            if name not in (*keep, "packs", "homes"):
                remove(self.files, f"{self.root}/{name}")
        for name in names_in(self.files, f"{self.root}/packs"):
            if name not in needed:
                remove(self.files, f"{self.root}/packs/{name}")


class Snapshotter:
    """Writes the snapshots of one shard, and knows which of its rows are already written.

    Args:
        manifest: manifest of a snapshot whose content the shard holds exactly, to write only newer rows; None to write
            all rows.
    """

    def __init__(self, place: Place, shard: int, shards: int, manifest: dict[str, Any] | None = None) -> None:
        self.place = place
        self.shard, self.shards = shard, shards
        self.pieces = [] if manifest is None else pieces_of(manifest)

    def save(self, name: str, storage: Storage, capture: Callable[[], dict[str, Any]], lock: Any) -> int:
        """Write a snapshot of the present content of the storage. Return the bytes that were new.

        The lock is held only briefly, so pushes and samples go on. Rows that the ring gives up before they are written
        are left out; they are the oldest. Raises OSError when there is no room; earlier snapshots stay whole.

        Args:
            capture: returns the counters that belong to the content, as JSON can hold them; called under the lock.
        """
        with lock:
            counters = capture()
            extremes = [[float(value) for value in side] for side in (storage.return_minimum, storage.return_maximum)]
            moments = storage.return_moments.tolist()
            bounds = np.array([ring.bounds[:2] for ring in storage.rings])  # (tasks, 2): head, tail
            todo = [self._unwritten(task, ring) for task, ring in enumerate(storage.rings)]
        pack = f"{self.shard}-{uuid.uuid4().hex}.pack"
        new: list[Piece] = []
        try:
            if any(todo):
                path = f"{self.place.root}/packs/{pack}"
                with self.place.open_new(path) as file:
                    for task, ranges in enumerate(todo):
                        self._write(file, pack, task, storage.rings[task], ranges, bounds, new, lock)
                    self.place.sync(file)
            kept = [piece for piece in self.pieces + new if piece.stop > bounds[piece.task, 1]]
            body = {
                "format": FORMAT,
                "shard": self.shard,
                "shards": self.shards,
                "spec": asdict(storage.spec),
                "bounds": bounds.tolist(),
                "extremes": extremes,
                "moments": moments,
                "counters": counters,
                "pieces": kept,
            }
            self.place.write_manifest(name, self.shard, body)
        except BaseException:
            if any(todo) and self.place.files.exists(path):
                remove(self.place.files, path)
            raise
        self.pieces = kept
        return sum(piece.bytes for piece in new)

    def _unwritten(self, task: int, ring: TaskRing) -> list[tuple[int, int]]:
        """Return ranges of rows, whole segments, that no piece has yet, newest first."""
        start = max([ring.tail, *(piece.stop for piece in self.pieces if piece.task == task)])
        step, ranges = max(1, PIECE_BYTES // (ring.stride + 1)), []
        while start < ring.head:
            stop = ring.segment_start(start + step)
            ranges.append((start, stop))
            start = stop
        return ranges[::-1]

    def _write(
        self,
        file: Any,
        pack: str,
        task: int,
        ring: TaskRing,
        ranges: list[tuple[int, int]],
        bounds: np.ndarray,
        new: list[Piece],
        lock: Any,
    ) -> None:
        for first, stop in ranges:
            packed, flags = ring.copy(first, stop)
            with lock:
                tail = ring.tail
            if tail > first:  # rows before the tail may have been overwritten during the copy
                gone = min(tail, stop) - first
                packed, flags, first = packed[gone:], flags[gone:], first + gone
                bounds[task, 1] = max(bounds[task, 1], first)
            if first == stop:
                continue
            crc = zlib.crc32(flags.data, zlib.crc32(packed.data))
            offset = file.tell()
            file.write(packed.data)
            file.write(flags.data)
            segments = int(np.count_nonzero(flags & LAST))
            new.append(Piece(pack, offset, packed.nbytes + flags.nbytes, task, first, stop, segments, crc))


def extremes_of(manifest: dict[str, Any]) -> np.ndarray:
    """Return (2, tasks): the least and greatest return of each task. Where no episode has ended, the manifest holds
    null and the result is +inf and -inf."""
    found = np.array(manifest["extremes"], float)
    return np.where(np.isnan(found), np.array([[np.inf], [-np.inf]]), found)


def pieces_of(manifest: dict[str, Any]) -> list[Piece]:
    return [Piece(*piece) for piece in manifest["pieces"]]
