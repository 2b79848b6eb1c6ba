"""How a metric is made from the state of a run: a value at a path, by task, by shard, by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

Labels = tuple[str, ...]
Sample = tuple[Labels, float | None]
State = dict[str, Any]  # {"row": the newest of metrics.jsonl, {} before the first, **Tally.state()}


@dataclass(frozen=True)
class Metric:
    """`unit` is one of Grafana's; `samples` gives (label values, value) for a state, None where there is none yet.

    A `lasting` counter has counted since the run began; any other since its coordinator did, as Prometheus expects of a
    process that begins anew.
    """

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    labels: Labels
    help: str
    samples: Callable[[State], Iterable[Sample]]
    lasting: bool = False


def number(*path: str) -> Callable[[State], Iterable[Sample]]:
    """One value, at this path of the state."""
    return lambda state: [((), dig(state, path))]


def keyed(*path: str) -> Callable[[State], Iterable[Sample]]:
    """A dictionary of values, its keys the label."""
    return lambda state: [((str(key),), value) for key, value in (dig(state, path) or {}).items()]


def chosen(path: tuple[str, ...], names: dict[str, str]) -> Callable[[State], Iterable[Sample]]:
    """Some values of a dictionary: label value -> key."""
    return lambda state: [((label,), (dig(state, path) or {}).get(key)) for label, key in names.items()]


def by_task(*path: str) -> Callable[[State], Iterable[Sample]]:
    """A dictionary of values by task."""
    return lambda state: [(task_labels(task), value) for task, value in (dig(state, path) or {}).items()]


def spread(state: State) -> Iterable[Sample]:
    """Mean and quantiles of recent returns."""
    for task, mean in (dig(state, ("row", "return")) or {}).items():
        yield (*task_labels(task), "mean"), mean
    for task, quantiles in (dig(state, ("row", "return_quantiles")) or {}).items():
        for name, value in quantiles.items():
            yield (*task_labels(task), name), value


def by_shard(field: str) -> Callable[[State], Iterable[Sample]]:
    return lambda state: [((str(shard["shard"]),), shard[field]) for shard in state["row"].get("shards", ())]


def by_side(what: str) -> Callable[[State], Iterable[Sample]]:
    """Of the limiter of each shard, for both sides."""
    return lambda state: [
        ((str(shard["shard"]), side), shard[f"{side}_{what}"])
        for shard in state["row"].get("shards", ())
        for side in ("insert", "sample")
    ]


def by_benchmark(*fields: str) -> Callable[[State], Iterable[Sample]]:
    """Counts of the fleet, the field as a label if there are several."""
    return lambda state: [
        ((benchmark, field) if len(fields) > 1 else (benchmark,), counts[field])
        for benchmark, counts in state["row"].get("actors_by_benchmark", {}).items()
        for field in fields
    ]


def bottleneck(state: State) -> Iterable[Sample]:
    found = state["row"].get("bottleneck")
    sides = ("actors", "learner", "limiter", "balanced") if found else ()
    return [((side,), float(found == side)) for side in sides]


def tallied(name: str) -> Callable[[State], Iterable[Sample]]:
    """What a Tally keeps by labels."""
    return lambda state: state[name].items()


def task_labels(task: str) -> Labels:
    return task.split("/", 1)[0], task


def dig(state: Any, path: Iterable[str]) -> Any:
    for key in path:
        if state is None:
            return None
        state = state.get(key)
    return state


def gauge(name: str, unit: str, labels: Labels, text: str, samples: Callable[[State], Iterable[Sample]]) -> Metric:
    return Metric(f"brc_{name}", "gauge", unit, labels, text, samples)


def counter(
    name: str,
    unit: str,
    labels: Labels,
    text: str,
    samples: Callable[[State], Iterable[Sample]],
    lasting: bool = False,
) -> Metric:
    return Metric(f"brc_{name}_total", "counter", unit, labels, text, samples, lasting)
