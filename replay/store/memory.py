"""Memory for a shard's rows and counters: files that outlive its process, or private memory of the process."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import struct
import time
import uuid
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from replay.json_text import json_text

FORMAT = "brc-shard-2"
MAGIC = b"BRC shard header"
PAGE = 4096
SLOT = struct.Struct("<QII")  # generation, CRC-32 of generation and state, unused
MOST_WRITERS = 16_384
NAME_BYTES = 48
WRITER = np.dtype([("name", f"S{NAME_BYTES}"), ("sequence", "<i8"), ("used", "<i8")])
PUSH = [("writer", f"S{NAME_BYTES}"), ("sequence", "<i8"), ("slot", "<i8"), ("pushes", "<i8")]
LOCK_TIMEOUT_S = 20.0


class FilesError(Exception):
    """Files of a shard cannot be used: they are damaged, of another shard, or in use. The message names the file."""


class FilesInUse(FilesError):
    """Another process uses the files."""


class PrivateMemory:
    """Memory that ends with the process.

    Attributes:
        rows: (nbytes,) uint8.
        state: a record of the given fields, initially zero. `commit` makes its present values persistent.
        sequences: sequence of the newest push of each writer.
        recovered: whether earlier content was found.
    """

    def __init__(self, nbytes: int, state: list[tuple[Any, ...]]) -> None:
        self.rows = np.zeros(nbytes, np.uint8)
        self.rows.fill(0)  # allocates the memory now: too small a machine fails at once, not in mid-run
        self.state: Any = np.zeros(1, state)[0]
        self.sequences: dict[str, int] = {}
        self.recovered = False

    def commit(self) -> None:
        """Make the state persistent. Private memory needs nothing for it."""

    def commit_push(self, writer: str, sequence: int) -> None:
        """Make the state persistent, together with the fact that it includes this push."""
        self.sequences[writer] = sequence

    def remember(self, sequences: dict[str, int]) -> None:
        """Set the sequences of the newest pushes of writers. The next commit makes them persistent."""
        self.sequences = dict(sequences)

    def close(self, remove: bool) -> None:
        """Release the memory; `remove` deletes it."""


class ShardFiles(PrivateMemory):
    """The files `header`, `rows` and `lock` in a folder; `header` and `rows` are mapped into memory.

    It has the attributes of PrivateMemory. Writers' names have at most 48 bytes.

    header: a description of the shard, two slots for the state, and a table of writers. A commit writes the slot that
    is not in use, with a checksum and the next generation number. The valid state is the slot with a correct checksum
    and the higher number.
    rows: a page with the token of the header, then the rows. Before rows are overwritten, a state without them is
    committed. So if the process is killed, at any instruction, the files are as after some commit.

    The table of writers lacks at most the last push of the state: the state holds that push, and opening the files adds
    it to the table. When the table is full, the writer whose last push is the oldest is removed.

    Args:
        folder: made if needed. This process holds its lock until it ends.
        identity: description that files must match to be taken over, as JSON can hold it.
        take: how often the files have been taken over, this time included. Files that were not taken over the last time
            are out of date.

    Raises:
        FilesError: existing files are damaged, out of date, or of another shard; or another process holds them; or
            there is no room for new files.
    """

    def __init__(
        self, folder: Path, identity: dict[str, Any], nbytes: int, state: list[tuple[Any, ...]], take: int = 1
    ) -> None:
        self.folder = folder
        self.dtype = np.dtype([*state, ("push", PUSH), ("take", "<i8")])
        described = {"format": FORMAT, "boot": boot_id(), "nbytes": nbytes} | identity
        self.identity = json_text(described, sort_keys=True).encode()
        self.slots_at = round_up(len(MAGIC) + 8 + 32 + len(self.identity))
        self.slot_size = round_up(SLOT.size + self.dtype.itemsize, 64)
        self.writers_at = round_up(self.slots_at + 2 * self.slot_size)
        self.header_size = self.writers_at + MOST_WRITERS * WRITER.itemsize
        self.rows_size = PAGE + nbytes
        self.record = np.zeros(1, self.dtype)
        self.state = self.record[0]
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = take_lock(folder / "lock")
        try:
            self._open()
            self._take(take)
        except BaseException:
            self.lock.close()
            raise

    def _open(self) -> None:
        if not (self.folder / "header").exists():
            self._create()
        self.header = map_file(self.folder / "header", self.header_size)
        rows = map_file(self.folder / "rows", self.rows_size)
        self._check(rows)
        self.rows = np.frombuffer(rows, np.uint8, offset=PAGE)
        self.table = np.frombuffer(self.header, WRITER, MOST_WRITERS, self.writers_at)
        self._load()

    def _create(self) -> None:
        """Make the files: rows first, and the header last, by renaming. So files that have a header are whole."""
        token = uuid.uuid4().hex.encode()
        rows, header = self.folder / "rows", self.folder / "header.new"
        try:
            with rows.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.rows_size)  # on tmpfs this allocates the memory now
                file.write(token)
            head = MAGIC + struct.pack("<II", len(self.identity), zlib.crc32(self.identity)) + token + self.identity
            with header.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.header_size)
                file.write(head)
                file.seek(self.slots_at)
                file.write(self._slot(0))
        except OSError as error:
            for made in (rows, header):
                made.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise FilesError(
                    f"{self.folder} has no room for {self.rows_size + self.header_size:,} bytes of replay: lower "
                    f"--replay.capacity, or name another place with --replay.directory"
                ) from error
            raise
        header.rename(self.folder / "header")

    def _check(self, rows: mmap.mmap) -> None:
        """Check that header and rows are this shard's and belong together, or raise FilesError."""
        file, start = self.folder / "header", len(MAGIC)
        if self.header[:start] != MAGIC:
            raise FilesError(f"{file} is not a shard's header")
        length, crc = struct.unpack("<II", self.header[start : start + 8])
        token = self.header[start + 8 : start + 40]
        self.token = token.decode("latin-1")  # new for each pair of files
        identity = self.header[start + 40 : start + 40 + length]
        if zlib.crc32(identity) != crc:
            raise FilesError(f"{file} is damaged: what it says of itself does not match its checksum")
        if identity != self.identity:
            raise FilesError(
                f"{file} is of another shard: {differences(json.loads(identity), json.loads(self.identity))}"
            )
        if rows[:32] != token:
            raise FilesError(f"{self.folder / 'rows'} does not belong to {file}")

    def _load(self) -> None:
        """Load the newest committed state. Raises FilesError if there is none."""
        found = {}
        for slot in (0, 1):
            start = self.slots_at + slot * self.slot_size
            generation, crc, _ = SLOT.unpack(self.header[start : start + SLOT.size])
            body = self.header[start + SLOT.size : start + SLOT.size + self.dtype.itemsize]
            if crc == checksum(generation, body) and crc:
                found[generation] = body
        if not found:
            raise FilesError(f"{self.folder / 'header'} is damaged: neither of its two states matches its checksum")
        self.generation = max(found)
        self.recovered = self.generation > 0
        if not self.recovered:  # killed before the first commit: the table of writers may have entries
            self.table[:] = 0
        self.record[:] = np.frombuffer(found[self.generation], self.dtype)
        push = self.state["push"]
        if push["pushes"]:
            self.table[int(push["slot"])] = (push["writer"], push["sequence"], push["pushes"])
        used = np.flatnonzero(self.table["used"])
        self.slot_of = {self.table["name"][slot].decode(): int(slot) for slot in used}
        self.sequences = {name: int(self.table["sequence"][slot]) for name, slot in self.slot_of.items()}

    def _take(self, take: int) -> None:
        """Record the count `take`. A process that restarts within a run takes the files over with the same count."""
        if self.recovered and self.state["take"] not in (take - 1, take):
            raise FilesError(f"{self.folder} is out of date: the run has gone on without it")
        self.state["take"] = take
        if self.recovered:
            self.commit()

    def _slot(self, generation: int) -> bytes:
        body = self.state.tobytes()
        found: bytes = SLOT.pack(generation, checksum(generation, body), 0) + body
        return found

    def commit(self) -> None:
        start = self.slots_at + ((self.generation + 1) & 1) * self.slot_size
        data = self._slot(self.generation + 1)
        self.header[start : start + len(data)] = data
        self.generation += 1

    def commit_push(self, writer: str, sequence: int) -> None:
        slot = self._slot_of(writer)
        pushes = int(self.state["push"]["pushes"]) + 1
        self.state["push"] = (writer.encode(), sequence, slot, pushes)
        self.commit()
        self.table[slot] = (writer.encode(), sequence, pushes)
        self.sequences[writer] = sequence

    def remember(self, sequences: dict[str, int]) -> None:
        for writer, sequence in sequences.items():
            self.table[self._slot_of(writer)] = (writer.encode(), sequence, 1)
            self.sequences[writer] = sequence

    def _slot_of(self, writer: str) -> int:
        """Return a writer's index in the table. In a full table, a new writer replaces the one with the oldest push."""
        slot = self.slot_of.get(writer)
        if slot is None:
            slot = len(self.slot_of)
            if slot == MOST_WRITERS:
                slot = int(self.table["used"].argmin())
                forgotten = self.table["name"][slot].decode()
                del self.slot_of[forgotten], self.sequences[forgotten]
            self.slot_of[writer] = slot
        return slot

    def close(self, remove: bool) -> None:
        if remove:
            for name in ("header", "rows", "lock"):
                (self.folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # the folders are not empty, or another shard has removed them
                self.folder.rmdir()
                self.folder.parent.rmdir()
        self.lock.close()


def boot_id() -> str:
    """Return the boot id of the system ("" if it has none). Files from before a system crash cannot be used: mapped
    memory was written back in no particular order, if at all."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def checksum(generation: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(struct.pack("<Q", generation)))


def take_lock(path: Path) -> Any:
    """Lock the file and return it, open. Waits up to LOCK_TIMEOUT_S, since a killed process releases it with a delay;
    then raises FilesInUse."""
    lock = path.open("a")
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FilesInUse(f"{path} is held by another process") from None
            time.sleep(0.05)


def map_file(path: Path, size: int) -> mmap.mmap:
    try:
        with path.open("r+b") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise FilesError(
                    f"{path} has {found:,} bytes where {size:,} are expected: it is torn, or of another shard"
                )
            return mmap.mmap(file.fileno(), size)
    except FileNotFoundError as error:
        raise FilesError(f"{path} is missing") from error


def differences(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Return, in words, where two descriptions differ."""
    names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return ", ".join(f"{name} is {found.get(name)!r}, not {expected.get(name)!r}" for name in names)


def round_up(size: int, unit: int = PAGE) -> int:
    return size + -size % unit
