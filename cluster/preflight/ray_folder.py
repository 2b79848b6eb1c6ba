"""Chooses the folder of a local Ray's sessions. It holds Unix sockets, and the system limits their paths' length."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.errors import ConfigError
from replay.store.locations import existing

MOST_SOCKET_BYTES = 107
SOCKET = "session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store"  # the longest path below the folder
MOST_BYTES = MOST_SOCKET_BYTES - len(f"/{SOCKET}")


def ray_folder(named: str) -> tuple[Path, str]:
    """Return the folder, and why it is not the folder that Ray would choose; "" if it is `named` or Ray's choice.

    Ray chooses `ray` in RAY_TMPDIR, TMPDIR or /tmp. Where that folder is too long or another user's, the result is a
    short folder of this user. Raises ConfigError for a named folder that is too long or cannot be written to.
    """
    if named:
        folder = Path(os.path.abspath(named))
        if trouble := unfit(folder):
            raise ConfigError(f"--ray-folder {named}: {trouble}; name another, such as {own_folder()}")
        return folder, ""
    folder = Path(os.path.abspath(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")) / "ray"
    trouble = unfit(folder)
    if not trouble and folder.exists() and folder.stat().st_uid != os.getuid():
        trouble = f"{folder} is another user's"  # Ray would have to replace that user's files
    if not trouble:
        return folder, ""
    if unfit(own_folder()) or (own_folder().exists() and own_folder().stat().st_uid != os.getuid()):
        raise ConfigError(
            f"--ray-folder: {trouble}, and {own_folder()} cannot be written to; name a short one of your own"
        )
    return own_folder(), trouble


def own_folder() -> Path:
    """Return a short folder that no other user has."""
    return Path(f"/tmp/brc-ray-{os.getuid()}")


def unfit(folder: Path) -> str:
    """Return why Ray's sessions cannot be in a folder; "" if they can."""
    if not str(folder).isascii():
        return f"{folder} has letters that Ray does not take"
    length = len(str(folder))
    if length > MOST_BYTES:
        return (
            f"{folder} is {length} bytes long, and with Ray's sockets below it a path may have {MOST_SOCKET_BYTES}, "
            f"which leaves {MOST_BYTES}"
        )
    place = existing(folder)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return f"{place} is not a folder that this user can write to"
    return ""
