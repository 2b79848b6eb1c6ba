"""Learning curves of the paper (arXiv 2505.23150), from data that its authors published under the MIT licence.

published_curves.json has mean and standard deviation over seeds at each evaluation, by suite and task. Its note says
why a point stands for 25,000 environment steps of each task.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SUITES = {"dmc": ("dmc",), "humanoid-bench": ("humanoidbench", "humanoidbench_hard"), "metaworld": ("metaworld",)}
ENDINGS = ("", "-v0", "-v2-goal-observable")


class Curve(NamedTuple):
    """Returns of one agent for all tasks of the paper's suite; for MetaWorld, shares of success."""

    steps: list[int]  # environment steps of this task
    mean: list[float]
    std: list[float]  # over seeds
    seeds: int

    def at(self, steps: float) -> float | None:
        """Return the mean after `steps` steps, interpolated; None before the first point or after the last."""
        if not self.steps[0] <= steps <= self.steps[-1]:
            return None
        return float(np.interp(steps, self.steps, self.mean))


@cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "published_curves.json").read_text())
    return found


def curve(task: str) -> Curve | None:
    """Return the paper's curve of a task, such as dmc/dog-run; None if the paper has none."""
    benchmark, _, name = task.partition("/")
    for suite in SUITES.get(benchmark, ()):
        for ending in ENDINGS:
            found = document()["suites"][suite]["multitask"].get(name + ending)
            if found is not None:
                interval = document()["interval_env_steps_per_task"]
                steps = [interval * (point + 1) for point in range(len(found["mean"]))]
                return Curve(steps, found["mean"], found["std"], found["seeds"])
    return None
