"""Compares whole runs, distributed against serial: the same tiny configuration, in separate processes, alternately.

"wall-time" is the time of the whole command, including start-up and evaluation. "steps-per-s" and "updates-per-s" are
rates of the training phase: from the first to the last row of metrics.jsonl between the first update and the last.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro

from benchmarks.report import alternate, compare
from dashboards.sinks import records


class Run(NamedTuple):
    """Measurements of one run."""

    wall_s: float
    steps_per_s: float  # of all tasks together
    updates_per_s: float


def main(preset: str = "quickstart", steps: int = 3000, warmup: int = 1000, repeats: int = 2, threads: int = 1) -> None:
    """Compare distributed with serial execution of the same configuration.

    Args:
        preset: configuration to start from.
        steps: environment steps of each task.
        warmup: how many of these steps come before the first update.
        repeats: runs of each execution.
        threads: threads of the learner; 0 takes every core. 1 is the quickstart preset's own.
    """

    def ours() -> Run:
        return run(preset, steps, warmup, threads, "distributed")

    def theirs() -> Run:
        return run(preset, steps, warmup, threads, "serial")

    distributed, serial = alternate(ours, theirs, repeats)
    for case, unit, field, less_is_better in (
        ("wall-time", "s", "wall_s", True),
        ("steps-per-s", "environment steps/s", "steps_per_s", False),
        ("updates-per-s", "updates/s", "updates_per_s", False),
    ):
        ours_of, theirs_of = ([getattr(one, field) for one in runs] for runs in (distributed, serial))
        result = compare("end-to-end", case, unit, ours_of, theirs_of, less_is_better)
        result.print(preset=preset, steps=steps, warmup=warmup, threads=threads)


def run(preset: str, steps: int, warmup: int, threads: int, execution: Literal["distributed", "serial"]) -> Run:
    """Train without scoring or saving anything, and return the measurements."""
    options = {
        "--execution": execution,
        "--steps": steps,
        "--replay.warmup": warmup,
        "--learner.threads": threads,
        "--evaluation.interval": 0,
        "--evaluation.episodes": 1,
        "--checkpoint-interval": 0,
    }
    started = time.perf_counter()
    rows = train(preset, options)
    return Run(time.perf_counter() - started, *training_rates(rows))


def train(preset: str, options: dict[str, Any], *flags: str) -> list[dict[str, Any]]:
    """Train, and return the rows of metrics, two a second. The folder of the run is removed afterwards.

    Raises RuntimeError with the output of the run if it fails.
    """
    # Below /tmp, because the sockets in Ray's folder may have paths of 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="brc-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        places = {"--name": "run", "--runs-folder": f"{folder}/runs", "--ray-folder": f"{folder}/ray"}
        command = [sys.executable, "-m", "cluster", "train", preset, *flags]
        for option in (places | {"--report-interval": 0.5} | options).items():
            command += [str(word) for word in option]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stdout[-2000:]}")
        return records.read(Path(folder) / "runs" / "run" / "metrics.jsonl")


def training_rates(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Return environment steps/s and updates/s. The last row is left out: it is written after the final evaluation."""
    training = [row for row in rows[:-1] if 0 < row["updates"] < rows[-1]["updates"]]
    if len(training) < 2:
        raise RuntimeError("training was over within two rows of metrics; raise --steps")
    first, last = training[0], training[-1]
    elapsed = last["elapsed_s"] - first["elapsed_s"]
    steps = sum(last["env_steps_by_task"].values()) - sum(first["env_steps_by_task"].values())
    return steps / elapsed, (last["updates"] - first["updates"]) / elapsed


if __name__ == "__main__":
    tyro.cli(main)
