"""Draws the mean scores of a study's variants over steps and over operations, as a picture: docs/critics_small.png."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import tyro
from matplotlib.ticker import MaxNLocator

from cluster.cli.study import loaded_variants
from cluster.study.study import find
from dashboards.report.comparison import AXES, whole
from dashboards.report.curves import Series, score_curve


def main(study: tyro.conf.Positional[str], file: tyro.conf.Positional[Path], runs_folder: str = "runs") -> int:
    """Draw a study whose runs are done.

    Args:
        study: a shipped study, or a file.
        file: the picture to write.
        runs_folder: where its runs are.
    """
    found = find(study)
    variants = loaded_variants(found, found.members(str(Path(runs_folder).absolute())))
    series = [whole(Series(number, label, tuple(runs))) for number, (label, runs) in enumerate(variants.items())]
    figure, plots = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, constrained_layout=True)
    for plot, (name, axis) in zip(plots, (AXES[0], AXES[-1]), strict=True):
        for one in series:
            curve = score_curve(one, False, axis)
            if curve is not None:
                (line,) = plot.plot(curve.steps, curve.mean, label=one.label, linewidth=1.4)
                plot.fill_between(curve.steps, curve.low, curve.high, color=line.get_color(), alpha=0.12, linewidth=0)
        plot.set_xlabel(name)
        plot.xaxis.set_major_locator(MaxNLocator(5))
        plot.spines[["top", "right"]].set_visible(False)
        plot.grid(alpha=0.3)
    plots[0].set_ylabel("mean score")
    plots[0].legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
