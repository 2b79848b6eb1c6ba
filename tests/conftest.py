"""Shared by all tests: no display, quiet libraries, and a tiny configuration that trains in seconds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from actors.backends.here import CALLED_IN
from learner.scale.waiting import ENVIRONMENT
from replay.store.locations import shared_folder
from tests.support.skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401 (pytest finds them here)
from tests.support.usual_signals import give_children_the_usual_signals

give_children_the_usual_signals()
os.environ.setdefault("MUJOCO_GL", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")  # kernels for GPUs run on a CPU
os.environ.update(ENVIRONMENT)  # runs in this process share the machine too


@pytest.fixture(autouse=True)
def called_nowhere() -> Iterator[None]:
    """Remove, after every test, the environment variable in which `brc` notes the folder where it was called."""
    yield
    os.environ.pop(CALLED_IN, None)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for runs and Ray's sessions, with a short path: Ray's sockets have a limit of 107 bytes.

    At the end the shared memory that killed runs have left is removed too.
    """
    with tempfile.TemporaryDirectory(prefix="brc-", ignore_cleanup_errors=True) as path:
        yield Path(path)
        for run in Path(path).rglob("id"):
            shutil.rmtree(shared_folder() / run.read_text(), ignore_errors=True)
