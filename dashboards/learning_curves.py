"""The learning curves of a run as one PNG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def draw(evaluations: list[dict[str, Any]], tasks: list[str], file: Path) -> None:
    """Mean and range of evaluation returns by task over environment steps; the random policy as a dashed line."""
    columns = min(4, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4 * columns, 3 * rows), squeeze=False)
    learned = [row for row in evaluations if row["policy"] != "random"]
    random = [row for row in evaluations if row["policy"] == "random"]
    for axis, task in zip(axes.flat, tasks, strict=False):
        x = [row["env_steps"] for row in learned]
        axis.plot(x, [row["return"][task] for row in learned], marker="o", markersize=3)
        axis.fill_between(
            x, [min(row["returns"][task]) for row in learned], [max(row["returns"][task]) for row in learned], alpha=0.2
        )
        if random:
            axis.axhline(random[0]["return"][task], linestyle="--", color="grey", linewidth=1)
        axis.set_title(task, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(tasks) :]:
        axis.axis("off")
    figure.supxlabel("environment steps of each task", fontsize=9)
    figure.supylabel("return", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
