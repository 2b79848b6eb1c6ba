"""Measures what answers to Prometheus cost: the same run with metrics, asked every second, and without, alternately.

Prometheus itself asks every fifteen seconds. The speed of a run varies by more than this cost, as the spread of the
ratios shows.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path

import numpy as np
import tyro

from benchmarks.end_to_end import train, training_rates
from benchmarks.report import alternate, compare

ASK_S = 1.0


class Asker(threading.Thread):
    """A thread that asks a run for its metrics until it is stopped. The folder of targets has the run's address."""

    def __init__(self, targets: Path) -> None:
        super().__init__(daemon=True)
        self.targets = targets
        self.stopped = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        while not self.stopped.wait(ASK_S):
            try:
                (target,) = json.loads((self.targets / "run.json").read_text())[0]["targets"]
                began = time.perf_counter()
                with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
                    answer.read()
                self.seconds.append(time.perf_counter() - began)
            except (OSError, HTTPException):  # the run has not begun, or has ended
                continue


def main(preset: str = "quickstart", steps: int = 4000, warmup: int = 1000, repeats: int = 3) -> None:
    """Compare steps and updates a second, with and without metrics.

    Args:
        preset: configuration to start from.
        steps: environment steps of each task.
        warmup: how many of these steps come before the first update.
        repeats: runs of each side.
    """
    options = {
        "--steps": steps,
        "--replay.warmup": warmup,
        "--evaluation.interval": 0,
        "--evaluation.episodes": 1,
        "--checkpoint-interval": 0,
    }
    asked: list[float] = []

    def ours() -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as targets:
            asker = Asker(Path(targets))
            asker.start()
            rows = train(preset, options | {"--metrics.targets": targets})
            asker.stopped.set()
            asker.join()
            asked.extend(asker.seconds)
        return training_rates(rows)

    def theirs() -> tuple[float, float]:
        return training_rates(train(preset, options, "--metrics.no-serve"))

    served, unserved = alternate(ours, theirs, repeats)
    for place, (case, unit) in enumerate((("steps-per-s", "environment steps/s"), ("updates-per-s", "updates/s"))):
        result = compare("monitoring", case, unit, [one[place] for one in served], [one[place] for one in unserved])
        result.print(
            preset=preset,
            steps=steps,
            warmup=warmup,
            of_each_side=[[one[place] for one in served], [one[place] for one in unserved]],
            scrapes=len(asked),
            scrape_ms=[1000 * float(np.percentile(asked, share)) for share in (50, 99, 100)],
        )


if __name__ == "__main__":
    tyro.cli(main)
