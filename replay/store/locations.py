"""Chooses the folder of shards' files, in shared memory if it has room, else on a disk, and measures free memory."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")  # the cgroup of this process, in a container
MOST_OF_PLACE = 1.1  # shared memory is chosen if its free bytes exceed this factor times the bytes of replay


def choose_folder(directory: str, fallback: Path, run: str, nbytes: int) -> Path:
    """Return the folder of a run's files: in `directory` if it is given, else where they already are, else in shared
    memory if it has room, else in `fallback`. Files outlive a process, but not a restart of the system.
    """
    first, *others = places(directory, fallback, run)
    if not others:
        return first
    shared, disk = first, others[0]
    return shared if shared.exists() or (has_room(shared, nbytes) and not disk.exists()) else disk


def places(directory: str, fallback: Path, run: str) -> list[Path]:
    """Return all folders that may hold a run's files."""
    if directory:
        return [Path(directory).absolute() / run]
    return [shared_folder() / run, fallback.absolute() / run]


def has_room(shared: Path, nbytes: int) -> bool:
    """Whether shared memory exists and has room, with a margin for other programs."""
    return shared_folder().parent.is_dir() and free_bytes(shared) > MOST_OF_PLACE * nbytes


def shared_folder() -> Path:
    """Return the folder of this user's runs in shared memory."""
    return Path(f"/dev/shm/brc-{os.getuid()}")


def left_behind(but: Path) -> list[tuple[Path, int]]:
    """Return the folders of runs in shared memory that no process uses, and their bytes. `but` is left out."""
    found = []
    for run in sorted(shared_folder().glob("*")):
        with suppress(FileNotFoundError):  # the run may be removing its files now
            files = [path for path in run.glob("shard-*/*") if path.is_file()]
            held = sum(path.stat().st_size for path in files)
            if run != but and held and not any(is_locked(path) for path in files if path.name == "lock"):
                found.append((run, held))
    return found


def is_locked(path: Path) -> bool:
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    path = path.absolute()
    while not os.path.exists(path):
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Return the free bytes of the file system that holds, or would hold, `path`."""
    found = os.statvfs(existing(path))
    return found.f_bavail * found.f_frsize


def node_memory() -> tuple[int, int]:
    """Return the available and the total bytes of memory of this machine, or of its container (cgroup v2) if its limit
    is lower. Shared memory counts as used by a container, the file cache does not."""
    memory = psutil.virtual_memory()
    try:
        limit = int((CGROUP / "memory.max").read_text())  # it may be "max"
        used = int((CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        used -= int(stat["inactive_file"]) + int(stat["active_file"])
    except (OSError, ValueError, KeyError):
        return memory.available, memory.total
    return min(memory.available, max(0, limit - used)), min(memory.total, limit)


def is_shared_memory(path: Path) -> bool:
    """Whether files in a folder are in shared memory, not on a disk."""
    shared = shared_folder().parent
    return shared.is_dir() and existing(path).stat().st_dev == shared.stat().st_dev
