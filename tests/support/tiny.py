"""A configuration that trains in seconds, and the `brc` command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.config.schema import ActorsConfig, Config, EvaluationConfig, ReplayConfig
from learner.config import LearnerConfig

OPTIONS = [
    "--tasks=dmc/cartpole-swingup",
    "--learner.width=16",
    "--learner.policy-width=16",
    "--learner.batch-size=32",
    "--learner.updates-per-step=0.25",
    "--learner.threads=1",
    "--learner.precision=float32",  # with auto, each run would measure for two seconds which precision is faster
    "--actors.count=1",
    "--actors.copies=2",
    "--replay.capacity=20000",
    "--replay.warmup=300",
    "--evaluation.episodes=1",
    "--evaluation.interval=0",
    "--evaluation.films=0",
    "--report-interval=0.5",
]


def config(**changes: Any) -> Config:
    """Return a configuration like OPTIONS, with twice the updates: serial, 1500 steps, on the CPU."""
    base: dict[str, Any] = {
        "tasks": ("dmc/cartpole-swingup",),
        "steps": 1500,
        "checkpoint_interval": 0,
        "execution": "serial",
        "learner": LearnerConfig(
            width=16,
            policy_width=16,
            batch_size=32,
            updates_per_step=0.5,
            threads=1,
            precision="float32",
            device="cpu",
            publish_interval=8,
        ),
        "actors": ActorsConfig(count=1, copies=2),
        "replay": ReplayConfig(capacity=20_000, warmup=300),
        "evaluation": EvaluationConfig(interval=0, episodes=1),
    }
    return Config(**(base | changes))


def command(arguments: list[str]) -> list[str]:
    """Return the command line of `brc` with this interpreter."""
    return [sys.executable, "-m", "cluster", *arguments]


def train_command(folder: Path, name: str, *options: str) -> list[str]:
    """Return the command line of `brc train quickstart` with OPTIONS. The run and Ray's files are below `folder`, which
    must have a short path."""
    places = [f"--runs-folder={folder}/runs", f"--ray-folder={folder}/ray", f"--name={name}"]
    return command(["train", "quickstart", *OPTIONS, *places, *options])


def train(folder: Path, name: str, *options: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        train_command(folder, name, *options), capture_output=True, text=True, timeout=timeout, env=environment()
    )


def run(*words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run `brc WORDS`."""
    return subprocess.run(command(list(words)), capture_output=True, text=True, timeout=timeout, env=environment())


def succeed(command: list[str], timeout: float = 280) -> None:
    """Run a command, and check that it succeeds."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr


def script(module: str, folder: Path) -> None:
    """Run `python -m tests.support.MODULE FOLDER`, and check that it succeeds."""
    succeed([sys.executable, "-m", f"tests.support.{module}", str(folder)])


def environment() -> dict[str, str]:
    return os.environ | {"COLUMNS": "200"}


def rows(folder: Path, name: str, file: str) -> list[dict[str, Any]]:
    path = folder / "runs" / name / f"{file}.jsonl"
    text = path.read_text() if path.exists() else ""
    # The last line may be incomplete.
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def manifest(folder: Path, name: str) -> dict[str, Any]:
    """Return the manifest of the newest checkpoint."""
    newest = sorted((folder / "runs" / name / "checkpoints").glob("[0-9]*/manifest.json"))[-1]
    result: dict[str, Any] = json.loads(newest.read_text())
    return result
