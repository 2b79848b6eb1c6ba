"""Functions that make a metric from the state of a run: a value, or values by task, shard, benchmark or name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from actors.reports import FleetCounts
from dashboards.metrics.tally import State
from dashboards.rows import Row, ShardRow

Labels = tuple[str, ...]
Sample = tuple[Labels, float | None]
Samples = Callable[[State], Iterable[Sample]]
TASK = ("benchmark", "task")  # labels of metrics that are measured by task
SIDES = ("actors", "learner", "limiter", "balanced")


@dataclass(frozen=True)
class Metric:
    """A metric. `unit` is a unit of Grafana. `samples` gives (label values, value) for a state; a value may be None.

    A `lasting` counter counts since the run began. Any other counter counts since the coordinator process began, as
    Prometheus expects of a restarted process.
    """

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    labels: Labels
    help: str
    samples: Samples
    lasting: bool = False


def number(value: Callable[[State], float | None]) -> Samples:
    """Make samples of one value of the state."""
    return lambda state: [((), value(state))]


def of_row(value: Callable[[Row], float | None]) -> Samples:
    """Make samples of one value of the newest row."""
    return lambda state: [] if state.row is None else [((), value(state.row))]


def keyed(values: Callable[[Row], Mapping[str, float | None]]) -> Samples:
    """Make samples of values of the newest row by name. The name is the label."""
    return lambda state: [] if state.row is None else [((key,), value) for key, value in values(state.row).items()]


def chosen(values: Callable[[Row], Mapping[str, float | None]], names: Mapping[str, str]) -> Samples:
    """Make samples of some named values of the newest row. `names` maps a label value to a name."""
    return lambda state: (
        [] if state.row is None else [((label,), values(state.row).get(name)) for label, name in names.items()]
    )


def by_task(values: Callable[[State], Mapping[str, float | None]]) -> Samples:
    """Make samples of values of the state by task."""
    return lambda state: [(task_labels(task), value) for task, value in values(state).items()]


def row_by_task(values: Callable[[Row], Mapping[str, float | None]]) -> Samples:
    """Make samples of values of the newest row by task."""
    return by_task(lambda state: {} if state.row is None else values(state.row))


def by_shard(value: Callable[[ShardRow], float]) -> Samples:
    """Make samples of a value of each shard in the newest row."""
    return lambda state: [] if state.row is None else [((str(one.shard),), value(one)) for one in state.row.shards]


def by_side(insert: Callable[[ShardRow], float], sample: Callable[[ShardRow], float]) -> Samples:
    """Make samples of a value of each shard's limiter, for both sides."""
    return lambda state: [
        ((str(shard.shard), side), value(shard))
        for shard in (() if state.row is None else state.row.shards)
        for side, value in (("insert", insert), ("sample", sample))
    ]


def by_benchmark(**counts: Callable[[FleetCounts], int]) -> Samples:
    """Make samples of fleet counts by benchmark. Several counts have their names as a second label."""
    return lambda state: [
        ((benchmark, name) if len(counts) > 1 else (benchmark,), count(fleet))
        for benchmark, fleet in ({} if state.row is None else state.row.actors_by_benchmark).items()
        for name, count in counts.items()
    ]


def spread(state: State) -> Iterable[Sample]:
    """Yield mean and quantiles of recent returns by task."""
    if state.row is None:
        return
    for task, mean in state.row.mean_return.items():
        yield (*task_labels(task), "mean"), mean
    for task, quantiles in state.row.return_quantiles.items():
        for name, value in quantiles.items():
            yield (*task_labels(task), name), value


def bottleneck(state: State) -> Iterable[Sample]:
    """Return 1 for the row's bottleneck, 0 for the other sides."""
    row = state.row
    return [] if row is None else [((side,), float(row.bottleneck == side)) for side in SIDES]


def task_labels(task: str) -> Labels:
    return task.split("/", 1)[0], task


def gauge(name: str, unit: str, labels: Labels, text: str, samples: Samples) -> Metric:
    return Metric(f"brc_{name}", "gauge", unit, labels, text, samples)


def counter(name: str, unit: str, labels: Labels, text: str, samples: Samples, lasting: bool = False) -> Metric:
    return Metric(f"brc_{name}_total", "counter", unit, labels, text, samples, lasting)
