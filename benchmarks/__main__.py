"""Runs every benchmark, or the named ones, one after another: `python -m benchmarks [name ...]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tyro

# Name -> options of a run that takes seconds. It shows that the benchmark works; do not trust its numbers.
BENCHMARKS: dict[str, list[str]] = {
    "learner": ["--widths", "256", "--seconds", "0.3", "--repeats", "2"],
    "options": ["--widths", "64", "--cases", "xqc", "pcgrad", "--seconds", "0.2", "--repeats", "2"],
    "tuning": ["--widths", "64", "--batches", "64", "--neighbours", "1", "--seconds", "0.3", "--settle", "0.5"],
    "actors": ["--tasks", "cartpole-swingup", "--seconds", "0.3", "--repeats", "2"],
    "replay": ["--rows", "50000", "--calls", "5", "--repeats", "2"],
    "fleet": ["--counts", "3", "1", "--crowd", "4", "--minutes", "0.5", "--steps", "6000"],
    "crowd": ["--actors", "20", "--processes", "2", "--tasks", "4", "--minutes", "0.4"],
    "monitoring": ["--steps", "900", "--warmup", "500", "--repeats", "1"],
    "end_to_end": ["--steps", "900", "--warmup", "500", "--repeats", "1"],
}


def main(names: tyro.conf.Positional[tuple[str, ...]] = (), quick: bool = False, reference: Path | None = None) -> int:
    """Run benchmarks, which print one JSON object a line. Return the exit code of the first that failed, else 0.

    Args:
        names: learner, options, tuning, actors, replay, fleet, crowd, monitoring, end_to_end; all if none is named.
        quick: run for seconds instead of minutes, to see that they work.
        reference: checkout of naumix/BiggerRegularizedCategorical, to compare the learner with.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"benchmarks: unknown {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or BENCHMARKS:
        options = BENCHMARKS[name] if quick else []
        if name == "learner" and reference is not None:
            options = [*options, "--reference", str(reference)]
        # Each runs in its own process: its thread pools and environment variables would affect the others.
        code = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=False).returncode
        failed = failed or code
    return failed


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
