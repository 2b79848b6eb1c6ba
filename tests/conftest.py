"""Shared by all tests: no display, quiet libraries, and a tiny configuration that trains in seconds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("MUJOCO_GL", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Runs and Ray's sessions, in a short path: Ray's sockets have a limit of 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="brc-", ignore_cleanup_errors=True) as path:
        yield Path(path)
