"""A running `brc train`: its processes, the records it has written so far, and checks of its end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import tiny

PATIENCE_S = 180.0


@contextmanager
def live(folder: Path, name: str, *options: str, before: str = "") -> Iterator[subprocess.Popen[str]]:
    """Start a run, whose process first executes the statements `before`. Kill its remaining processes at the end."""
    python, _, _, *arguments = tiny.train_command(folder, name, *options)
    main = f"import sys, cluster.cli.main; {before}; sys.exit(cluster.cli.main.main(sys.argv[1:]))"
    process = subprocess.Popen(
        [python, "-c", main, *arguments] if before else tiny.train_command(folder, name, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=tiny.environment(),
    )
    try:
        yield process
    finally:
        for left in [*relatives(process.pid), *([] if process.poll() is not None else [psutil.Process(process.pid)])]:
            left.kill()
        process.communicate()


def relatives(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True) if psutil.pid_exists(pid) else []


def command_line(process: psutil.Process) -> str:
    """Return the command line of a process; "" if the process is gone."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def free_port() -> int:
    """Return a port that nothing listened on a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_until(what: Callable[[], Any], patience_s: float = PATIENCE_S, why: str = "it") -> Any:
    """Wait for the first true value of `what`, and return it."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if value := what():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {patience_s:.0f} s in vain for {why}")


def wait_for(process: subprocess.Popen[str], what: Callable[[], Any]) -> Any:
    """Wait for the first true value of `what` while the run lives, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if value := what():
            return value
        assert process.poll() is None, f"ended before what was waited for:\n{process.communicate()[0]}"
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def wait_for_steps(process: subprocess.Popen[str], folder: Path, name: str, steps: int) -> dict[str, Any]:
    """Wait for the first row of metrics at or beyond `steps`, and return it."""
    row: dict[str, Any] = wait_for(
        process, lambda: next((row for row in tiny.rows(folder, name, "metrics") if row["env_steps"] >= steps), None)
    )
    return row


def ray_process(process: subprocess.Popen[str], kind: str) -> psutil.Process:
    """Wait for the Ray process of one part of the run, and return it."""
    found: psutil.Process = wait_for(
        process, lambda: next((p for p in relatives(process.pid) if f"ray::{kind}" in command_line(p)), None)
    )
    return found


def read_so_far(process: subprocess.Popen[str]) -> str:
    """Return the output of the process since the last call, without waiting for more."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    try:
        return process.stdout.read() or ""
    finally:
        os.set_blocking(process.stdout.fileno(), True)


def events(folder: Path, name: str, kind: str) -> list[dict[str, Any]]:
    return [row for row in tiny.rows(folder, name, "events") if row["event"] == kind]


def ended_well(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    return output


def scrape(url: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the samples at a URL by name, as (labels, value)."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def address(folder: Path, run: str) -> str:
    """Return the URL of a run's metrics, as Prometheus reads it from its file of targets."""
    (entry,) = json.loads((folder / "runs" / ".prometheus" / f"{run}.json").read_text())
    assert entry["labels"] == {"run": run}
    return f"http://{entry['targets'][0]}/metrics"


def assert_whole(folder: Path, name: str, steps: int, tasks: int = 1) -> dict[str, Any]:
    """Check that the run met its budget to the step and its ratio within two percent. Return its last row."""
    updates = (steps - 300) // 4
    last = tiny.rows(folder, name, "metrics")[-1]
    assert (last["env_steps"], last["updates"]) == (steps, updates), last
    target = 0.25 * 32 / tasks
    assert last["samples_per_insert_target"] == pytest.approx(target)
    assert last["samples_per_insert"] == pytest.approx(target, rel=0.02)
    saved = tiny.manifest(folder, name)
    assert (saved["env_steps"], saved["updates"]) == (steps, updates)
    final = tiny.rows(folder, name, "eval")[-1]
    assert (final["policy"], final["env_steps"], final["updates"]) == ("deterministic", steps, updates)
    assert len(final["return"]) == tasks
    assert events(folder, name, "finished")
    return last
