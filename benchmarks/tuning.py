"""Compares the precision and threads that a run chooses by itself with every fixed choice, beside busy processes.

A case is a width and a number of neighbours: processes that never rest. Ours is an update as a run makes it, where
`learner.scale.tuning` chooses and `learner.scale.pace` adapts the choice. `fresh` has chosen beside these neighbours.
`kept` has chosen before the first case of its width and has run in all cases since; in each it has `settle` seconds to
adapt. Theirs is the fastest fixed choice in this case. The fixed choices are both precisions with every number of
threads, and with all threads waiting as torch lets them by default (`spinning`), which runs do not do. All sides take
turns, in processes of their own that rest while it is not their turn.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import tyro

from benchmarks.report import compare
from learner.scale.waiting import ENVIRONMENT

HOPELESS = 3.0  # a choice that takes more than this factor times the best of the first turns has no further turn
NEIGHBOUR = "while True: sum(range(1000))"


@dataclass(frozen=True)
class Side:
    """How updates are made. With "auto" and 0 threads, they choose by themselves."""

    precision: str
    threads: int
    spinning: bool = False

    @property
    def name(self) -> str:
        return f"{self.precision}-{self.threads}{'-spinning' if self.spinning else ''}"


def main(
    widths: tuple[int, ...] = (64, 128, 256, 512),
    batches: tuple[int, ...] = (256, 256, 1024, 1024),
    neighbours: tuple[int, ...] = (0, 1, 3),
    seconds: float = 0.3,
    settle: float = 4.0,
    repeats: int = 31,
) -> None:
    """Compare milliseconds of an update by our choice and by the best fixed one. The ratio is theirs by ours: 0.87 and
    above means at most 1.15 times slower. `times_slower` is the median over neighbouring turns. `times_slower_in_all`
    is the ratio of the sums of all turns; in it, trials of other numbers of threads count with all the time they take.

    Args:
        widths: widths of the critic.
        batches: rows of an update, for each width.
        neighbours: numbers of busy processes, case after case.
        seconds: length of a turn.
        settle: seconds of updates before the turns of a case.
        repeats: turns of each side.
    """
    for width, batch_size in zip(widths, batches, strict=True):
        kept = Part(width, batch_size, Side("auto", 0))
        fixed = [Part(width, batch_size, side) for side in sides()]
        for count in neighbours:
            with busy(count):
                fresh = Part(width, batch_size, Side("auto", 0))
                kept.updates(settle)
                report(f"w{width}-b{batch_size}-busy{count}", {"fresh": fresh, "kept": kept}, fixed, seconds, repeats)
                fresh.end()
        for part in (kept, *fixed):
            part.end()


def sides() -> list[Side]:
    """Return every fixed choice."""
    from learner.scale.pace import steps
    from learner.scale.precision import multiplies_bfloat16

    cores = os.cpu_count() or 1
    precisions = ["float32", "bf16"] if multiplies_bfloat16("cpu") else ["float32"]
    bounded = [Side(precision, threads) for precision in precisions for threads in steps(cores)]
    return bounded + [Side(precision, cores, spinning=True) for precision in precisions if cores > 1]


def report(case: str, ours: dict[str, Part], fixed: list[Part], seconds: float, repeats: int) -> None:
    """Let all sides take turns, and print a row for each of ours."""
    turns: dict[str, list[float]] = {name: [] for name in ours}
    theirs: dict[str, list[float]] = {part.side.name: [] for part in fixed}
    for _ in range(repeats):
        for name, part in ours.items():
            turns[name].append(part.updates(seconds))
        least = min((found[0] for found in theirs.values() if found), default=0.0)
        for part in fixed:
            found = theirs[part.side.name]
            if not found or found[0] <= HOPELESS * least:
                found.append(part.updates(seconds))
    medians = {name: median(found) for name, found in theirs.items()}
    best = min((name for name in theirs if len(theirs[name]) == repeats), key=lambda name: medians[name])
    for name, part in ours.items():
        result = compare("tuning", f"{case}-{name}", "ms", turns[name], theirs[best], less_is_better=True)
        in_all = sum(turns[name]) / sum(theirs[best])
        slower = {"times_slower": 1 / result.ratio, "times_slower_in_all": in_all}
        result.print(**slower, chosen=part.chosen(), best=best, fixed_ms=medians)


class Part:
    """One side, in a process of its own, because the way its threads wait is set by the environment."""

    def __init__(self, width: int, batch_size: int, side: Side) -> None:
        context = multiprocessing.get_context("spawn")
        self.side = side
        self.pipe, theirs = context.Pipe()
        before = {name: os.environ.pop(name, None) for name in ENVIRONMENT}
        os.environ.update({} if side.spinning else ENVIRONMENT)
        self.process = context.Process(target=serve, args=(width, batch_size, side, theirs), daemon=True)
        self.process.start()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        self.pipe.recv()  # it has chosen

    def updates(self, seconds: float) -> float:
        """Make updates for `seconds`, at least one. Return the milliseconds of one."""
        self.pipe.send(seconds)
        taken: float = self.pipe.recv()
        return taken

    def chosen(self) -> str:
        """Return its precision and threads now."""
        self.pipe.send(None)
        words: str = self.pipe.recv()
        return words

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def serve(width: int, batch_size: int, side: Side, pipe: Connection) -> None:
    """Run the process of a side: choose, then make updates whenever asked to."""
    # These load torch, so they are imported after the environment has been set.
    from benchmarks.learner import learner_spec
    from learner.learner import Learner
    from learner.scale.crew import Crew
    from learner.scale.pace import Pace, steps
    from learner.scale.tuning import choose, sample, train_at
    from learner.spec import ALONE

    spec: Any = learner_spec(width, batch_size, side.precision, "cpu", side.threads or os.cpu_count() or 1)  # type: ignore[arg-type]
    most = spec.config.threads
    spec, measured = choose(replace(spec, tuned=not side.threads), ALONE)
    known = {way.threads: cost for way, cost in measured.items() if way.precision == spec.config.precision}
    pace = Pace([side.threads] if side.threads else steps(most), spec.config.threads, known)
    crew, batches = Crew(Learner(spec)), sample(spec.changed(batches_per_request=1))
    train_at(pace, crew, batches).finish()
    pipe.send(None)
    while True:
        seconds = pipe.recv()
        if seconds is None:
            pipe.send(f"{spec.config.precision}-{pace.settled}")
            continue
        started, made = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds:
            train_at(pace, crew, batches).finish()
            made += 1
        pipe.send(1000 * elapsed / made)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Run `count` processes that never rest."""
    processes = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    tyro.cli(main)
