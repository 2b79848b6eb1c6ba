"""The card of a published run, README.md of a model repository: tasks, results, curves, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import yaml

from cluster.config.changes import words
from cluster.config.presets import PRESETS
from cluster.config.schema import Config
from cluster.plan.plan import Plan
from cluster.run.manifest import Manifest
from dashboards.rows import EvaluationRow

CURVES = "curves.png"
BODY = """# {name}

One agent on {count}: preset `{preset}` of BRC at scale after {steps:,} environment steps of each task and {updates:,}
updates, seed {seed}.

{table}

Means and deviations of {episodes} episodes each with the deterministic policy; `random` is a random policy.
{curves}
{act}{train_on}## Train another

The options that it was trained with are in `config.yaml`; `brc train --config config.yaml` trains another like it.
{options}"""


ACT = """## Act with it

The policy is in `policy/`: `example.py` acts with the ONNX graph, and needs numpy and onnxruntime alone. `policy.json`
says in which order it reads observations and how its actions are scaled; the weights are in `policy.safetensors` too.

    import numpy as np, onnxruntime
    session = onnxruntime.InferenceSession("policy/policy.onnx")
    observation = np.zeros((1, {observation}), np.float32)  # your environment's, zeros behind it
    (action,) = session.run(["action"], {{"observation": observation, "task": np.array([0])}})

"""
TRAIN_ON = """## Train on

    brc pull {url} {name} --checkpoint
    brc add-task {name} {task} --steps 100000

"""


def card(
    name: str,
    preset: str,
    config: Config,
    plan: Plan,
    manifest: Manifest,
    rows: Sequence[EvaluationRow],
    url: str,
    has_policy: bool,
    has_checkpoint: bool,
) -> str:
    """Return the card of a run with these evaluations, which is published at `url`, with its policy and its checkpoint
    or without."""
    learned = [row for row in rows if not row.is_random][-1:]
    random = [row for row in rows if row.is_random][:1]
    tasks = [task.name for task in plan.tasks]
    base = PRESETS.get(preset)
    changed = " ".join(words(config, base())) if base else ""
    text = BODY.format(
        name=name,
        count=f"{len(tasks)} tasks" if len(tasks) > 1 else f"`{tasks[0]}`",
        preset=preset,
        steps=manifest.env_steps,
        updates=manifest.updates,
        seed=config.seed,
        table=table(tasks, learned, random),
        episodes=max((len(values) for row in learned for values in row.returns.values()), default=0),
        curves=f"\n![mean scores or returns over environment steps]({CURVES})\n" if learned else "",
        act=ACT.format(observation=plan.observation_size) if has_policy else "",
        train_on=TRAIN_ON.format(url=url, name=name, task=tasks[0]) if has_checkpoint else "",
        options=f"\nBeyond its preset: `{changed}`\n" if changed else "",
    )
    return f"---\n{yaml.safe_dump(front(name, tasks, learned), sort_keys=False)}---\n\n{text}"


def front(name: str, tasks: Sequence[str], learned: Sequence[EvaluationRow]) -> dict[str, Any]:
    """Return what search engines of models read: tags, and the mean return of each task."""
    results = [
        {
            "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
            "dataset": {"name": task, "type": task},
            "metrics": [{"type": "mean_reward", "name": "mean_reward", "value": f"{mean:.2f} +/- {deviation:.2f}"}],
        }
        for task in tasks
        if (found := spread(learned, task)) is not None
        for mean, deviation in [found]
    ]
    benchmarks = dict.fromkeys(task.split("/")[0] for task in tasks)
    return {
        "library_name": "brc-at-scale",
        "tags": ["reinforcement-learning", "multi-task", "continuous-control", *benchmarks],
        "model-index": [{"name": name, "results": results}],
    }


def spread(rows: Sequence[EvaluationRow], task: str) -> tuple[float, float] | None:
    """Return mean and deviation of the valid returns of a task in the last of these evaluations."""
    values = [value for row in rows[-1:] for value in row.returns[task] if value is not None]
    return (fmean(values), pstdev(values)) if values else None


def table(tasks: Sequence[str], learned: Sequence[EvaluationRow], random: Sequence[EvaluationRow]) -> str:
    """Return the results as a table in Markdown."""
    lines = ["| task | random | learned | success |", "|---|---|---|---|"]
    for task in tasks:
        before, after = spread(random, task), spread(learned, task)
        success = success_of(learned, task)
        cells = (
            "" if before is None else f"{before[0]:.1f}",
            "" if after is None else f"{after[0]:.1f} ± {after[1]:.1f}",
            "" if success is None else f"{success:.0%}",
        )
        lines.append(f"| `{task}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def success_of(rows: Sequence[EvaluationRow], task: str) -> float | None:
    found: Mapping[str, float | None] = rows[-1].success if rows else {}
    return found.get(task)


def draw(rows: Sequence[EvaluationRow], file: Path) -> None:
    """Draw the mean score over steps, or the returns of tasks that have no score, into a PNG."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    learned = [row for row in rows if not row.is_random]
    figure, axes = plt.subplots(figsize=(7, 3.6))
    steps = [row.env_steps for row in learned]
    if all(row.score_mean is not None for row in learned):
        axes.plot(steps, [row.score_mean for row in learned], marker="o")
        axes.set_ylabel("mean score")
    else:
        for task in learned[-1].mean_return:
            axes.plot(steps, [row.mean_return[task] for row in learned], marker="o", label=task)
        axes.set_ylabel("mean return")
        axes.legend(fontsize="small")
    axes.set_xlabel("environment steps of each task")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
