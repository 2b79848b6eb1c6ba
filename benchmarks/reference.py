"""Compares the time of our update with the jitted update of the JAX reference, naumix/BiggerRegularizedCategorical.

The reference runs from a checkout given by its path, in a process of its own (reference_process.py), so that the two
libraries do not share thread pools. While one side computes, the other waits. Both make the same number of updates of
the same shapes, from batches that are in memory, and draw their own noise. Our updates also normalise the rewards.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from benchmarks.report import alternate, compare
from learner.networks.spec import NetworkSpec
from learner.scale.cuda_graph import WARM_UP
from replay.json_text import json_text

UPDATES = 2  # updates in one call of the reference, compiled together; the paper makes as many per step
WARM_UP_CALLS = 2  # it compiles in its first call, and again in its second, where its step counter is an array
XLA_THREADS = 8  # with fewer, the reference hung at widths of 512 and more on a machine with two cores


class ReferenceUnavailable(Exception):
    """The reference cannot be run; the message says in one sentence what to do."""


class Reference:
    """The process that holds the reference's agent. It computes only while `seconds_of` waits for it."""

    def __init__(
        self, reference: Path, python: str, networks: NetworkSpec, batch_size: int, products: str, device: str
    ) -> None:
        if not (reference / "jaxrl" / "agent" / "brc_learner.py").is_file():
            raise ReferenceUnavailable(
                f"--reference {reference} is not a checkout of the reference: clone "
                f"https://github.com/naumix/BiggerRegularizedCategorical"
            )
        settings = {
            "reference": str(reference.resolve()),
            "observation_size": networks.observation_size,
            "action_size": networks.action_size,
            "num_tasks": networks.num_tasks,
            "width": networks.width,
            "batch_size": batch_size,
            "updates": UPDATES,
            "products": products,
        }
        root = str(Path(__file__).resolve().parent.parent)
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.reference_process", json_text(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=os.environ
            | {
                "NPROC": str(XLA_THREADS),
                "JAX_PLATFORMS": device,
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # our learner is on the same GPU
                "MUJOCO_GL": "disable",
            },
        )
        try:
            answer = self._read()
            if missing := answer.get("missing"):
                raise ReferenceUnavailable(
                    f"{python} lacks {', '.join(missing)}, which the reference needs: {python} -m pip install "
                    f"{' '.join(missing)}"
                )
            self.versions: dict[str, str] = answer["versions"]
        except BaseException:
            self.close()
            raise

    def seconds_of(self, calls: int) -> float:
        """Return the seconds that the reference takes for `calls` calls of its update."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        return float(self._read()["seconds"])

    def close(self) -> None:
        """Close the standard input of the process, which then ends. Kill it if it is still computing after 10 s."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Reference:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the reference's process ended with exit code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def compare_updates(
    path: Path,
    python: str,
    case: str,
    train: Callable[[], Any],
    updates: int,
    networks: NetworkSpec,
    batch_size: int,
    products: str,
    device: str,
    seconds: float,
    repeats: int,
) -> None:
    """Print a row. A call of `train` makes `updates` of ours; `products` is the precision of the reference."""

    def ours_of(calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            train()
        return time.perf_counter() - started

    with Reference(path, python, networks, batch_size, products, device) as reference:
        reference.seconds_of(WARM_UP_CALLS)
        ours_of(WARM_UP + 1)  # the last call records a CUDA graph, if updates are recorded
        ours = milliseconds_per_update(ours_of, updates, seconds)
        theirs = milliseconds_per_update(reference.seconds_of, UPDATES, seconds)
        result = compare(
            "against-reference",
            f"{case}-to-{products}",
            "ms/update",
            *alternate(ours, theirs, repeats),
            less_is_better=True,
        )
        result.print(
            reference_versions=reference.versions,
            updates_per_s=1000 / result.ours,
            reference_updates_per_s=1000 / result.theirs,
            updates_per_call=UPDATES,
            threads=torch.get_num_threads(),
        )


def milliseconds_per_update(seconds_of: Callable[[int], float], updates: int, seconds: float) -> Callable[[], float]:
    """Return a measurement of about `seconds`. The time of one call decides the number of calls."""
    calls = max(1, round(seconds / seconds_of(1)))
    return lambda: 1000 * seconds_of(calls) / (calls * updates)
