"""Measures a fleet in a real run: scaled up and down under load, and a crowd of a hundred actors for minutes.

"scale" asks for another number of actors five times, and prints how long each change took; the limit is 20 seconds. The
run then ends at its budget to the step. "crowd" keeps many actors, each with one copy of a small task. It prints the
memory of all processes of the run together, and the coordinator's share of a core. `lost_pushes` counts pushes whose
shard did not answer, and that are sent again: 0, unless something is wrong.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import tyro

from benchmarks.report import compare
from dashboards.sinks import records

LIMIT_S = 20.0
PATIENCE_S = 600.0
TINY: dict[str, Any] = {
    "--tasks": ["dmc/cartpole-swingup", "dmc/pendulum-swingup", "dmc/cartpole-balance"],
    "--learner.width": 16,
    "--learner.policy-width": 16,
    "--learner.batch-size": 32,
    "--learner.threads": 1,
    "--actors.copies": 1,
    "--actors.cpus": 0.05,
    "--replay.warmup": 500,
    "--evaluation.interval": 0,
    "--evaluation.episodes": 1,
    "--checkpoint-interval": 0,
    "--report-interval": 0.5,
}


def main(
    counts: tuple[int, ...] = (4, 1, 6, 2, 5), crowd: int = 100, minutes: float = 5.0, steps: int = 60_000
) -> None:
    """Scale a fleet, and keep a crowd.

    Args:
        counts: numbers of actors, one after another; none leaves the case out.
        crowd: actors to keep together; 0 leaves the case out.
        minutes: length of the measurement, after all actors of the crowd collect.
        steps: environment steps of each task in the run that is scaled.
    """
    if counts:
        scale(counts, steps)
    if crowd:
        keep(crowd, minutes)


def scale(counts: tuple[int, ...], steps: int) -> None:
    with run(2, {"--steps": steps, "--learner.updates-per-step": 0.5}) as (process, folder):
        wait_for(process, lambda: newest(folder).get("updates", 0) > 100)
        took: list[float] = []
        for count in counts:
            begun = newest(folder)["env_steps"]
            options = [f"--runs-folder={folder.parent}", "--timeout=120"]
            command = [sys.executable, "-m", "cluster", "scale", "run", f"dmc={count}", *options]
            started = time.monotonic()
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            took.append(time.monotonic() - started)  # the command returns when the fleet has this size
            if f"{count} of {count} actors" not in said:
                raise RuntimeError(f"asked for {count} actors: {said}")
            wait_for_steps(process, folder, begun + 200)
        process.wait(PATIENCE_S)
        last = newest(folder)
    result = compare("fleet", "scale", "s until as asked", took, [LIMIT_S] * len(took), less_is_better=True)
    result.print(
        counts=counts,
        seconds=took,
        slowest=max(took),
        exit_code=process.returncode,
        env_steps=last["env_steps_by_task"],
        budget=steps,
        lost_pushes=last["writers"]["lost"],
        samples_per_insert=last["samples_per_insert"],
        samples_per_insert_target=last["samples_per_insert_target"],
    )


def keep(count: int, minutes: float) -> None:
    with run(count, {"--steps": 10**9, "--learner.updates-per-step": 0.02}) as (process, folder):
        wait_for(process, lambda: newest(folder).get("actors", 0) == count)
        ready = time.monotonic()
        first, times = newest(folder), process.cpu_times()
        memory: list[int] = []
        while time.monotonic() - ready < 60 * minutes:
            memory.append(together(process))
            time.sleep(10)
            if process.poll() is not None:
                raise RuntimeError(f"the run ended with exit code {process.returncode}")
        elapsed, spent = time.monotonic() - ready, process.cpu_times()
        last = newest(folder)
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
        events = [event["event"] for event in records.read(folder / "events.jsonl")]
    half = len(memory) // 2
    result = compare("fleet", "crowd-memory", "bytes of all processes", memory[-half:], memory[:half], True)
    result.print(
        actors=count,
        minutes=elapsed / 60,
        coordinator_cores=(spent.user + spent.system - times.user - times.system) / elapsed,
        least_bytes=min(memory),
        most_bytes=max(memory),
        last_bytes=memory[-1],
        steps_per_s=(sum(last["env_steps_by_task"].values()) - sum(first["env_steps_by_task"].values())) / elapsed,
        actors_died=events.count("actor_died"),
        lost_pushes=last["writers"]["lost"],
        lost_requests=last["sampler"]["lost"],
        samples_per_insert=last["samples_per_insert"],
        samples_per_insert_target=last["samples_per_insert_target"],
        exit_code=process.returncode,
    )


@contextmanager
def run(actors: int, options: dict[str, Any]) -> Iterator[tuple[psutil.Popen, Path]]:
    """Start a run; yield its process and folder. At the end its processes are killed and its folder is removed."""
    with tempfile.TemporaryDirectory(prefix="brc-", dir="/tmp", ignore_cleanup_errors=True) as place:
        places = {"--name": "run", "--runs-folder": f"{place}/runs", "--ray-folder": f"{place}/ray"}
        command = [sys.executable, "-m", "cluster", "train", "quickstart"]
        for option, value in (TINY | places | {"--actors.count": actors} | options).items():
            command += [option, *map(str, value if isinstance(value, list) else [value])]
        with open(f"{place}/log", "w") as log:
            process = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"COLUMNS": "200"})
        try:
            yield process, Path(place) / "runs" / "run"
        except RuntimeError as error:
            raise RuntimeError(f"{error}:\n{Path(f'{place}/log').read_text()[-2000:]}") from error
        finally:
            for left in [*(process.children(recursive=True) if process.is_running() else []), process]:
                with suppress(psutil.NoSuchProcess):
                    left.kill()


def wait_for(process: psutil.Popen, what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"waited in vain; exit code {process.returncode}")
        time.sleep(0.1)


def wait_for_steps(process: psutil.Popen, folder: Path, steps: int) -> None:
    wait_for(process, lambda: newest(folder)["env_steps"] > steps)


def newest(folder: Path) -> dict[str, Any]:
    """Return the last row of metrics; an empty one if there is none."""
    return next(iter(records.tail(folder / "metrics.jsonl", 1)), {})


def together(process: psutil.Popen) -> int:
    """Return the bytes of memory of all processes of a run. Memory that several share counts once."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += one.memory_full_info().pss
    return total


if __name__ == "__main__":
    tyro.cli(main)
