"""Types of a Grafana dashboard: rows of panels, each with a few queries, a unit and limits."""

from __future__ import annotations

from typing import NamedTuple

Query = tuple[str, str]  # PromQL, legend


class Panel(NamedTuple):
    """A panel. It is green from the value `good` on and red from `bad` on. If `bad` < `good`, low values are bad."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    bad: float
    good: float = 0.0
    wide: bool = False


class Board(NamedTuple):
    """A dashboard: rows of panels. `variables` are the names among run, benchmark, task and node in its queries."""

    uid: str
    title: str
    description: str
    variables: tuple[str, ...]
    rows: dict[str, tuple[Panel, ...]]


RUN = '{run=~"$run"}'
BENCHMARK = '{run=~"$run", benchmark=~"$benchmark"}'
TASK = '{run=~"$run", benchmark=~"$benchmark", task=~"$task"}'
NEVER = 1e18  # limit of values without a limit


def rate(metric: str, by: str, selector: str = RUN) -> str:
    return f"sum by (run, {by}) (rate({metric}{selector}[$__rate_interval]))"


def of_run(metric: str) -> str:
    return f"sum by (run) (rate({metric}{RUN}[$__rate_interval]))"


# Events that are marked on every panel of a dashboard: name -> (PromQL of the time in milliseconds, title, color). The
# query returns the time itself: over days, Grafana's steps would miss a query that is true only for a moment.
MARKS = {
    "begun": (f"brc_begun_timestamp_seconds{RUN} * 1000", "{{run}} has begun", "green"),
    "deaths": (f"brc_restart_timestamp_seconds{RUN} * 1000", "{{part}} of {{run}}: {{cause}}", "red"),
    "checkpoints": (f"brc_checkpoint_timestamp_seconds{RUN} * 1000", "checkpoint of {{run}}", "blue"),
    "scaled": (f"brc_scaled_timestamp_seconds{RUN} * 1000", "another number of actors wanted in {{run}}", "yellow"),
}

# Panels that several dashboards show, or one dashboard at its top.
BOTTLENECK = Panel(
    "Who is waited for",
    "1 for the side that the other waits for; limiter where both wait by turns, balanced where neither does.",
    "short",
    ((f"brc_bottleneck{RUN} == 1", "{{run}} {{side}}"),),
    NEVER,
)
WAITS = Panel(
    "Waiting",
    "Share of the time that each side waits for the other. A learner that waits wants more actors.",
    "percentunit",
    ((f"brc_wait_ratio{RUN}", "{{run}} {{side}}"),),
    0.5,
)
SPEED = Panel(
    "Environment steps",
    "Steps a second that replay takes, by benchmark.",
    "cps",
    ((rate("brc_environment_steps_total", "benchmark"), "{{run}} {{benchmark}}"),),
    0.0,
    0.1,
)
UPDATES = Panel(
    "Updates", "Updates of the agent a second.", "cps", ((of_run("brc_updates_total"), "{{run}}"),), 0.0, 0.1
)
RATIO = Panel(
    "Samples per insert",
    "Rows sampled for each row inserted, and what the limiter holds it at.",
    "short",
    ((f"brc_samples_per_insert{RUN}", "{{run}}"), (f"brc_samples_per_insert_target{RUN}", "{{run}} target")),
    NEVER,
)
