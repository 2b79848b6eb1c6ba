"""Measures what five hundred actors cost the coordinator: its fleet, with Ray actors that each stand for several.

A process that only pretends to step needs as much memory as an actor, and five hundred do not fit on a small machine.
So each of a few processes makes up the reports of many actors. The fleet works as always: it asks each of the five
hundred in turn, and uses its report. Everything else is what a coordinator does between two ticks: metrics rows of
hundreds of tasks, records on disk, and answers to Prometheus. Prints the coordinator's share of a core, the share of
metrics alone, its memory, the age of the oldest report, the number of series in an answer, and the time of an answer.
"""

from __future__ import annotations

import os
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import ray
import tyro

from actors.actor import ActorSpec, Assignment
from actors.episodes import Episode
from actors.fleet import Fleet, Limits
from actors.reports import ActorReport
from benchmarks.report import compare
from dashboards.metrics.exporter import Exporter
from dashboards.metrics.tally import State, Tally
from dashboards.progress import Progress
from dashboards.sinks.records import Records
from learner.agents.catalogue import acting
from learner.networks.spec import NetworkSpec
from learner.reports import LearnerReport, Seconds
from replay.stats import LimiterStats, SamplerStats, ShardStats, WriterStats

TICK_S = 0.25  # seconds between two ticks of the coordinator
REPORT_S = 5.0


def main(actors: int = 500, processes: int = 25, tasks: int = 100, minutes: float = 5.0) -> None:
    """Poll a fleet, and measure its costs.

    Args:
        actors: number of actors that the fleet sees.
        processes: number of processes that answer for them.
        tasks: number of tasks of the run, which the actors share.
        minutes: length of the measurement, after all actors collect.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(num_cpus=processes, include_dashboard=False, log_to_driver=False, logging_level="WARNING")
    names = [f"task-{index}" for index in range(tasks)]
    progress = Progress(names, 10**9, 1.0)
    crowd = [ray.remote(Crowd).options(num_cpus=1).remote() for _ in range(processes)]
    what = [Assignment("dmc", number, (number % tasks,)) for number in range(actors)]
    fleet = Fleet(
        what,
        0,
        lambda one, incarnation: ActorSpec(
            name=one.name,
            index=one.number,
            tasks=(),
            copies=1,
            first_copy=0,
            observation_size=1,
            action_size=1,
            segment_length=1,
            discount=0.99,
            seed=0,
            acting=acting(NetworkSpec(observation_size=1, action_size=1, num_tasks=1)),
        ),
        lambda spec: Member(crowd[spec.index % processes], spec.index % tasks),
        {"dmc": Limits(60.0, 1e12)},
    )
    fleet.collect()
    while fleet.stats()["dmc"].alive < actors:
        fleet.poll()
    process, seconds, memory, oldest = psutil.Process(), [], [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder))
        exporter = Exporter("crowd", Tally(State(10**9, 10**9, 0)), "127.0.0.1", 0, Path(folder))
        records.mirrors.append(exporter)
        asked: list[float] = []
        series, telling = 0, 0.0
        began, told = time.monotonic(), 0.0
        while time.monotonic() - began < 60 * minutes:
            started = busy(process)
            minute = time.monotonic() + 10.0
            while time.monotonic() < minute:
                reports = fleet.poll().reports
                cpu, due = time.thread_time(), time.monotonic() - told > REPORT_S
                progress.episodes_ended(reports)
                if due:
                    told = time.monotonic()
                    records.metrics(progress.row(fleet.reports, fleet.stats(), learner(tasks), [shard(tasks)]))
                telling += time.thread_time() - cpu
                if due:
                    ages = [time.monotonic() - report.writer.push_s for report in fleet.reports]
                    oldest = max(oldest, *ages)
                    began_to_ask = time.perf_counter()
                    with urllib.request.urlopen(exporter.url) as answer:
                        series = sum(not line.startswith(b"#") for line in answer.read().splitlines())
                    asked.append(time.perf_counter() - began_to_ask)
                time.sleep(TICK_S)
            seconds.append((busy(process) - started) / 10.0)
            memory.append(float(process.memory_info().rss))
        # Cores for making rows, writing them and answering. An answer counts for as long as the caller waits for it.
        monitoring = (telling + sum(asked)) / (time.monotonic() - began)
        records.close()
    half = len(memory) // 2
    result = compare("crowd", "coordinator-memory", "bytes", memory[-half:], memory[:half], True)
    result.print(
        actors=actors,
        processes=processes,
        minutes=minutes,
        series=series,
        scrape_ms=[1000 * median(asked), 1000 * max(asked)],
        coordinator_cores=sum(seconds) / len(seconds),
        most_coordinator_cores=max(seconds),
        monitoring_cores=monitoring,
        least_bytes=min(memory),
        most_bytes=max(memory),
        oldest_report_s=oldest,
    )
    ray.shutdown()


class Crowd:
    """A process that answers for several actors."""

    def report(self, task: int) -> ActorReport:
        """Report one episode that ended since the last report; `push_s` is the time of this report."""
        writer = WriterStats(pushes=1, transitions=32, bytes=4096, push_s=time.monotonic())
        seconds = {"act": 1.0, "step": 1.0, "record": 1.0, "push": 1.0}
        return ActorReport([Episode(task, 100.0, 1000, False)], 32, 32, 1, 0.0, seconds, writer, False)

    def answer(self) -> tuple[str, int]:
        return "", 0


class Member:
    """One of several actors in a process, with the methods of a handle that a fleet calls."""

    def __init__(self, crowd: Any, task: int) -> None:
        self.placed = self.build = self.start = self.stop = self.leave = Method(crowd.answer)
        self.report = Method(crowd.report, task)


class Method:
    def __init__(self, method: Any, *arguments: int) -> None:
        self.method = method
        self.arguments = arguments

    def remote(self) -> ray.ObjectRef:
        return self.method.remote(*self.arguments)


def busy(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def learner(tasks: int) -> LearnerReport:
    """Return the report of a learner with this number of tasks."""
    return LearnerReport(1000, {}, [1.0] * tasks, Seconds(), 1, 10, SamplerStats())


def shard(tasks: int) -> ShardStats:
    """Return the stats of a shard with this number of tasks."""
    zeros = [0] * tasks
    return ShardStats(
        shard=0,
        pid=0,
        token="",
        caught_up=True,
        limiter=LimiterStats(0, 0, 0, 1, 1.0, 0.0, 0.0, 0.0, 0.0, 0, 0),
        inserts_by_task=[1000] * tasks,
        transitions_by_task=zeros,
        clipped_by_task=zeros,
        fill=0.5,
        bytes=10**9,
        node_available_bytes=10**9,
        node_total_bytes=10**10,
        repeated_pushes=0,
        bad_segments=0,
        bad_transitions=0,
        origin="empty",
        problem="",
    )


if __name__ == "__main__":
    tyro.cli(main)
