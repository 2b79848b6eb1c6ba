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
    git = ["git", "--no-optional-locks", "-C", str(ROOT)]  # it writes nothing: others may use the checkout
    try:
        head, changes = (
            subprocess.run([*git, *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if changes else "")
