"""Calls of `brc` in a user's own folder, where environments lie beside other modules with common names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import tiny

ROOT = Path(__file__).resolve().parents[2]
COMMON = ("actors", "cluster", "dashboards", "learner", "replay", "random", "redis", "typing", "tests")
MODULE = "wandering_envs"


def prepare(folder: Path) -> Path:
    """Fill the folder with environments and with modules that must not be imported. Return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tests" / "support" / f"{MODULE}.py", folder)
    (folder / "marker").touch()
    for name in COMMON:
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py was imported')\n")
    return folder


def environment(**variables: str) -> dict[str, str]:
    """Return the environment variables of a shell that has only this project on PYTHONPATH."""
    return os.environ | {"COLUMNS": "200", "PYTHONPATH": str(ROOT)} | variables


def brc(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `brc` in the folder. Return its output and its exit code."""
    command = [sys.executable, "-P", "-c", "import sys; from brc_at_scale import main; sys.exit(main())", *words]
    return subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, encoding="utf-8", timeout=280
    )


def train(folder: Path, task: str, name: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    tasks = f"--tasks=gymnasium/{MODULE}:{task}-v0"
    return brc(folder, "train", "quickstart", *tiny.OPTIONS[1:], tasks, f"--name={name}", *options, **variables)
