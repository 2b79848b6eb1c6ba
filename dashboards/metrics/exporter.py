"""Answers Prometheus with the newest metrics of a run, and tells it where."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dashboards.events import Begun, Entry, Failed
from dashboards.metrics.metrics import METRICS
from dashboards.metrics.samples import Labels
from dashboards.metrics.tally import Tally
from dashboards.rows import EvaluationRow, Row
from replay.json_text import json_text

SELDOM_S = 120.0  # Prometheus asks every minute if it is not told otherwise
GAPS = 5  # between questions, of which the longest counts: two servers may ask


def write_target(file: Path, address: str, labels: dict[str, str]) -> None:
    """Tell Prometheus whom to ask (file_sd). It never sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json_text([{"targets": [address], "labels": labels}]))
    os.replace(partial, file)


class Exporter:
    """A mirror of a run's records. What it answers is made when a row comes, so that a question costs little.

    Args:
        run: value of the label `run`.
        address: of this machine, to listen on and to be asked at.
        port: 0 takes any that is free.
        targets: folder of files that Prometheus finds its targets in (file_sd); one named for the run is written.
            It is left there when the run fails, so that somebody is told: the target does not answer any more.

    Raises OSError when the port cannot be listened on, and, with a file name, when that file cannot be written.
    """

    def __init__(self, run: str, tally: Tally, address: str, port: int, targets: Path) -> None:
        self.run = run
        self.tally = tally
        self.families: list[Metric] = []
        self.totals: dict[tuple[str, Labels], tuple[float, float]] = {}  # (what is shown, what was last said)
        self.heard: list[Metric] = []  # what was last answered
        self.asked: deque[float] = deque(maxlen=GAPS + 1)  # when
        self.target = targets / f"{run}.json"
        registry = CollectorRegistry()
        registry.register(self)
        self.server, self.thread = start_http_server(port, address, registry)
        self.url = f"http://{address}:{self.server.server_port}/metrics"
        try:
            write_target(self.target, f"{address}:{self.server.server_port}", {"run": run})
        except OSError:
            self._stop()
            raise
        self._make()

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client, in a thread of its own."""
        self.heard = self.families
        self.asked.append(time.monotonic())
        return iter(self.heard)

    def event(self, entry: Entry) -> None:
        self.tally.event(entry)
        if isinstance(entry.event, (Begun, Failed)):  # no row may follow soon, or ever
            self._make()

    def wait_until_heard(self, stop: threading.Event) -> None:
        """For who asks every now and then to get the newest answer; for nobody else, and not when `stop` is set."""
        asked = list(self.asked)
        longest = max((after - before for before, after in itertools.pairwise(asked)), default=math.inf)
        if longest > SELDOM_S:
            return
        while self.heard is not self.families and time.monotonic() - asked[-1] < 2 * longest and not stop.wait(0.1):
            pass

    def evaluation(self, row: EvaluationRow) -> None:
        self.tally.evaluation(row)

    def metrics(self, row: Row) -> None:
        self.tally.state.row = row
        self._make()

    def _make(self) -> None:
        """What is answered from now on."""
        state = self.tally.state
        families: list[Metric] = []
        for metric in METRICS:
            labels = ("run", *metric.labels)
            is_counter = metric.kind == "counter"
            family = (CounterMetricFamily if is_counter else GaugeMetricFamily)(metric.name, metric.help, labels=labels)
            grows = is_counter and not metric.lasting
            for values, value in metric.samples(state):
                if value is not None:
                    shown = self._total(metric.name, values, value) if grows else value
                    family.add_metric((self.run, *values), shown)
            families.append(family)
        self.families = families

    def _total(self, name: str, labels: Labels, value: float) -> float:
        """What has been counted since the first row. It does not go back: what a part counted is gone with it, the sum
        over those that live falls, and Prometheus would take all that is left for new."""
        total, last = self.totals.get((name, labels), (0.0, value))
        total += max(0.0, value - last)
        self.totals[name, labels] = total, value
        return total

    def close(self) -> None:
        """Of a run that has ended as it should."""
        self.target.unlink(missing_ok=True)
        self._stop()

    def _stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
