"""The version of this project, and its commit where it runs from a checkout."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def version() -> str:
    """Return the version of the installed package; "" where it is not installed."""
    try:
        return metadata.version("brc-at-scale")
    except metadata.PackageNotFoundError:
        return ""


@cache
def commit() -> str:
    """Return the short commit of a checkout, with + behind it where files differ from it; "" without a checkout."""
    if not (ROOT / ".git").exists():
        return ""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
