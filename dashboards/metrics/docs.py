"""Print docs/metrics.md: every metric that a run serves, as dashboards/metrics/metrics.py declares it."""

from __future__ import annotations

from dashboards.metrics.metrics import METRICS

HEAD = """# Metrics

What a live run answers Prometheus. This page is written by `make docs` from `dashboards/metrics/metrics.py`; edit the
declarations there, not this page. [monitoring.md](monitoring.md) says how to ask, and what to look at when.

Every series has the label `run` besides those named here. No label names an actor or a process: a run has 15 series
for each task, 12 for each shard, 4 for each benchmark and some ninety others. That is about 4,700 for 300 tasks, 8
shards and 500 actors, or any other number of them.

| metric | type | labels | unit | what it is |
|---|---|---|---|---|"""
UNITS = {"short": "", "percentunit": "0 to 1", "dateTimeAsIso": "Unix time", "bool": "0 or 1"}


def page() -> str:
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {UNITS.get(metric.unit, metric.unit)} | "
        f"{metric.help} |"
        for metric in METRICS
    ]
    return "\n".join([HEAD, *rows, ""])


if __name__ == "__main__":
    print(page(), end="")
