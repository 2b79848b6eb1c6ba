"""Server of the newest metrics of a run for Prometheus, and the file that tells Prometheus its address."""

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

SELDOM_S = 120.0  # by default, Prometheus scrapes every minute
GAPS = 5  # newest gaps between scrapes; the longest counts, since two servers may scrape


def write_target(file: Path, address: str, labels: dict[str, str]) -> None:
    """Write the target file for Prometheus (file_sd). Prometheus never reads a partial file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json_text([{"targets": [address], "labels": labels}]))
    os.replace(partial, file)


class Exporter:
    """Mirror of a run's records that answers Prometheus. It makes the answer when a row comes, so a scrape is cheap.

    Args:
        run: value of the label `run`.
        address: address of this machine, to listen on and to write into the target file.
        port: port to listen on; 0 takes any free port.
        targets: folder of Prometheus' target files (file_sd). The exporter writes a file named for the run. The file
            stays when the run fails: Prometheus then sees that the target does not answer, and can alert.

    Raises OSError when the port cannot be listened on, and, with a file name, when the target file cannot be written.
    """

    def __init__(self, run: str, tally: Tally, address: str, port: int, targets: Path) -> None:
        self.run = run
        self.tally = tally
        self.families: list[Metric] = []
        self.totals: dict[tuple[str, Labels], tuple[float, float]] = {}  # (shown total, last value of the row)
        self.heard: list[Metric] = []  # the last answer
        self.asked: deque[float] = deque(maxlen=GAPS + 1)  # times of scrapes
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
        """Return the current answer. prometheus_client calls this in its own thread."""
        self.heard = self.families
        self.asked.append(time.monotonic())
        return iter(self.heard)

    def event(self, entry: Entry) -> None:
        self.tally.event(entry)
        if isinstance(entry.event, (Begun, Failed)):  # a row may follow late or never
            self._make()

    def wait_until_heard(self, stop: threading.Event) -> None:
        """Wait until Prometheus, if it scrapes regularly, has the newest answer, or until `stop` is set."""
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
        """Make the answer to scrapes from the current state."""
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
        """Return a counter's growth since the first row; it never falls. The sum over living parts falls when a part
        dies with its count, and Prometheus would then count all of the remaining sum as new."""
        total, last = self.totals.get((name, labels), (0.0, value))
        total += max(0.0, value - last)
        self.totals[name, labels] = total, value
        return total

    def close(self) -> None:
        """Close the exporter after a regular end of the run, and remove the target file."""
        self.target.unlink(missing_ok=True)
        self._stop()

    def _stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
