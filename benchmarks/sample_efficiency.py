"""Measures returns at a budget of environment steps: evaluations of several seeds, against the reference's own runs.

`python -m benchmarks.sample_efficiency reference` trains on the tasks and configuration of reference_small_run.json,
which holds learning curves of the published JAX code. The return of a seed is the mean of its last three evaluations.
`theirs` is the mean over the reference's seeds, `ours` the median over our seeds, and `spread` the ratios of our
single seeds.

`python -m benchmarks.sample_efficiency quickstart` trains the preset as a newcomer does. `ours` is the mean score over
tasks of the last evaluation. `theirs` is the score of 0.5 that it must reach with every seed.

This takes hours, so `python -m benchmarks` leaves it out. Runs that are finished already are not made again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import tyro

from benchmarks.report import compare
from dashboards.sinks import records

REFERENCE = json.loads((Path(__file__).parent / "reference_small_run.json").read_text())
# That file's configuration in our options. One actor with one copy of each task is closest to its lock step.
REFERENCE_OPTIONS = [
    "--tasks",
    "dmc/cartpole-swingup",
    "dmc/walker-stand",
    "--steps=30000",
    "--learner.width=128",
    "--learner.policy-width=256",
    "--learner.batch-size=128",
    "--learner.updates-per-step=2",
    "--learner.learning-rate=3e-4",
    "--learner.initial-temperature=0.1",
    "--learner.threads=1",
    "--replay.warmup=2500",
    "--replay.capacity=100000",
    "--evaluation.interval=2500",
    "--evaluation.episodes=5",
    "--actors.count=1",
    "--actors.copies=1",
    "--checkpoint-interval=0",
]
LAST = 3  # number of last evaluations that count
NEEDED = 0.5  # mean score to reach over the quickstart's tasks
Curves = dict[str, dict[str, list[list[tuple[int, float]]]]]  # by task and group of seeds: (step, return) by seed


def reference(
    execution: str = "serial",
    seeds: tuple[int, ...] = (0, 1, 2),
    runs_folder: Path = Path("runs/sample-efficiency"),
    figure: Path | None = None,
) -> None:
    """Compare our returns with the reference implementation's at equal environment steps.

    Args:
        execution: serial or distributed.
        seeds: one run each.
        runs_folder: where the runs go.
        figure: PNG to draw both sides' curves into.
    """
    options = [*REFERENCE_OPTIONS, f"--execution={execution}"]
    runs = [evaluations(f"{execution}-{seed}", seed, options, runs_folder) for seed in seeds]
    tasks = list(runs[0][0]["return"])
    curves: Curves = {}
    for task in tasks:
        short = task.removeprefix("dmc/")
        theirs = [[(row["step"], row["eval_return"][short]) for row in run["rows"]] for run in REFERENCE["seeds"]]
        ours = [[(row["env_steps"], row["return"][task]) for row in run if row["policy"] != "random"] for run in runs]
        curves[task] = {execution: ours, "JAX reference": theirs}
        by_seed = [last_mean(curve) for curve in ours]
        reference_by_seed = [last_mean(curve) for curve in theirs]
        whole = mean(reference_by_seed)
        result = compare("sample-efficiency", f"{short}-{execution}", "return", by_seed, [whole] * len(by_seed))
        reached = {"mean": mean(by_seed), "by_seed": by_seed, "reference_mean": whole}
        result.print(**reached, reference_by_seed=reference_by_seed, seeds=seeds)
    if figure is not None:
        draw(curves, figure)


def quickstart(
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    precision: str = "auto",
    runs_folder: Path = Path("runs/quickstart-seeds"),
    figure: Path | None = None,
) -> None:
    """Compare the preset's mean score over tasks in its last evaluation with the score that it must reach.

    Args:
        seeds: one run each.
        precision: precision of the learner's matrix products.
        runs_folder: where the runs go.
        figure: PNG to draw the curves into.
    """
    options = [f"--learner.precision={precision}"]
    runs = [evaluations(f"quickstart-{precision}-{seed}", seed, options, runs_folder) for seed in seeds]
    curves: Curves = {}
    for task in runs[0][0]["return"]:
        curves[task] = {"quickstart": [[(row["env_steps"], row["return"][task]) for row in run] for run in runs]}
    scores = [run[-1]["score_mean"] for run in runs]
    final, random = ({task: [run[at]["return"][task] for run in runs] for task in curves} for at in (-1, 0))
    minutes = [(run[-1]["elapsed_s"] - run[0]["elapsed_s"]) / 60 for run in runs]
    result = compare("quickstart", "mean score", "score", scores, [NEEDED] * len(scores))
    result.print(by_seed=scores, returns=final, random=random, minutes=minutes, seeds=seeds, precision=precision)
    if figure is not None:
        draw(curves, figure)


def evaluations(name: str, seed: int, options: list[str], runs_folder: Path) -> list[dict[str, Any]]:
    """Return the rows of eval.jsonl of a finished run. If there is none, make it now."""
    finished = any(row["event"] == "finished" for row in records.read(runs_folder / name / "events.jsonl"))
    if not finished:
        command = [sys.executable, "-m", "cluster", "train", "quickstart", *options]
        subprocess.run(
            [*command, f"--name={name}", f"--seed={seed}", f"--runs-folder={runs_folder}"],
            check=True,
            stdout=sys.stderr,
        )
    return records.read(runs_folder / name / "eval.jsonl")


def last_mean(curve: list[tuple[int, float]]) -> float:
    return mean(value for _, value in curve[-LAST:])


def draw(curves: Curves, file: Path) -> None:
    """Draw one panel a task. Of every group of seeds, single curves are thin and their mean is thick."""
    figure, axes = plt.subplots(1, len(curves), figsize=(5 * len(curves), 3.6), squeeze=False)
    for axis, (task, groups) in zip(axes.flat, curves.items(), strict=True):
        for number, (name, seeds) in enumerate(groups.items()):
            color = f"C{number}"
            for curve in seeds:
                axis.plot(*zip(*curve, strict=True), color=color, linewidth=0.8, alpha=0.4)
            points = list(zip(*seeds, strict=True))
            steps = [mean(step for step, _ in point) for point in points]
            means = [mean(value for _, value in point) for point in points]
            axis.plot(
                steps,
                means,
                color=color,
                linewidth=2.2,
                label=name if len(seeds) == 1 else f"{name}, {len(seeds)} seeds",
            )
        axis.set_title(task)
        axis.set_xlabel("environment steps of each task")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes.flat[0].set_ylabel("evaluation return")
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"reference": reference, "quickstart": quickstart})
