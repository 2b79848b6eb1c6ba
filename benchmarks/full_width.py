"""Measures the paper's width on this machine's GPU: speed against the JAX reference, and dogs over the paper's curves.

First come the rows of `benchmarks.learner` for every precision, recorded or not, against the reference in float32 and
in its fastest precision. Then come the kernels that take most of an update's time. Then `brc train dmc-dogs` runs for
the given minutes, and its evaluations are drawn over the published ones. A published point stands for 25,000
environment steps of each task.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from benchmarks.learner import learner_spec, noise, update
from benchmarks.report import rounded, versions
from benchmarks.sample_efficiency import Curves, draw
from dashboards.report import published
from dashboards.sinks import records
from learner.config import Device
from learner.learner import Learner
from replay.json_text import json_text


def main(
    reference: Path | None = None,
    python: str = sys.executable,
    device: Device = "cuda",
    width: int = 4096,
    batch_size: int = 1024,
    repeats: int = 5,
    minutes: float = 60.0,
    run: str = "full-width",
    runs_folder: Path = Path("runs"),
    figure: Path = Path("full-width.png"),
    train: str = "",
) -> int:
    """Measure, then train. Exit code 2 if a GPU or the reference is missing.

    Args:
        reference: checkout of naumix/BiggerRegularizedCategorical; without it the comparison is left out.
        python: interpreter that has jax, flax, optax and distrax.
        device: cuda, or cpu with a small width to see that this works.
        width: width of the critic.
        batch_size: rows in an update.
        repeats: repeats of each measurement.
        minutes: minutes of training. It then stops with a checkpoint, from which the same command resumes.
        run: name of the run.
        runs_folder: folder of the run's folder.
        figure: PNG file to draw into.
        train: more options of `brc train`, as in --train="--steps=100000 --seed=1".
    """
    if device == "cuda" and not torch.cuda.is_available():
        print("full_width: torch finds no GPU here; --device cpu --width 64 shows that this works", file=sys.stderr)
        return 2
    precisions = ["float32", "tf32", "bf16"] if device == "cuda" else ["float32", "bf16"]
    command = [sys.executable, "-m", "benchmarks.learner", "--device", device, "--widths", str(width)]
    command += ["--batches", str(batch_size), "--repeats", str(repeats), "--precisions", *precisions]
    command += ["--record", "True", "False"] if device == "cuda" else []
    if reference is not None:
        products = ["float32", "bfloat16"] if device == "cuda" else ["float32"]
        command += ["--reference", str(reference), "--python", python, "--reference-products", *products]
    if code := subprocess.run(command, check=False).returncode:
        return code
    print(json_text(rounded(kernels(width, batch_size, device))), flush=True)
    code = learn(
        run, runs_folder, minutes, [f"--learner.width={width}", f"--learner.device={device}", *shlex.split(train)]
    )
    evaluations = [row for row in records.read(runs_folder / run / "eval.jsonl") if row["policy"] != "random"]
    if not evaluations:
        print(f"full_width: nothing to draw, brc train ended with exit code {code}", file=sys.stderr)
        return code or 1
    draw(over_published(evaluations), figure)
    print(json_text({"benchmark": "dmc-dogs", "return": evaluations[-1]["return"], "figure": str(figure)}))
    return 0


def kernels(width: int, batch_size: int, device: Device, count: int = 12) -> dict[str, Any]:
    """Return the largest shares of the device's time in an update: by kernel on a GPU, else by operation."""
    spec = learner_spec(width, batch_size, "bf16" if device == "cuda" else "float32", device, torch.get_num_threads())
    learner, batches = Learner(spec), noise(spec)
    update(learner, batches)
    on_gpu = device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as trace:
        update(learner, batches)
    events = trace.key_averages()
    times = {event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in events}
    whole = sum(times.values())
    largest = sorted(times, key=lambda key: -times[key])[:count]
    shares = {key: times[key] / whole for key in largest}
    return {"benchmark": "kernels", "case": f"w{width}-b{batch_size}", "shares": shares, "versions": versions()}


def learn(run: str, runs_folder: Path, minutes: float, options: list[str]) -> int:
    """Train for `minutes`, or resume the run if it exists. Return the exit code of `brc train`."""
    command = [sys.executable, "-m", "cluster", "train", "dmc-dogs", f"--name={run}", f"--runs-folder={runs_folder}"]
    if (runs_folder / run / "config.yaml").exists():
        command.append("--resume")
    process = subprocess.Popen([*command, *options], stdout=sys.stderr)
    try:
        return process.wait(timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it writes a checkpoint and ends
        process.wait()
        return 0


def over_published(evaluations: list[dict[str, Any]]) -> Curves:
    """Return our curves and the paper's, of every task."""
    curves: Curves = {}
    for task in evaluations[0]["return"]:
        paper = published.curve(task)
        assert paper is not None
        ours = [(row["env_steps"], row["return"][task]) for row in evaluations]
        curves[task] = {
            "ours": [ours],
            f"paper, mean of {paper.seeds} seeds": [list(zip(paper.steps, paper.mean, strict=True))],
        }
    return curves


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
