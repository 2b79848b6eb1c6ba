"""Where a run's records are shown besides its folder, as its configuration says."""

from __future__ import annotations

from pathlib import Path

from cluster.errors import ConfigError
from cluster.plan import Plan
from cluster.session import Session

LOCAL = "127.0.0.1"
TARGETS = ".prometheus"  # no run can have this name


def show(session: Session, plan: Plan, address: str) -> None:
    """Have Prometheus answered, if that is wanted, and say where. `address` is of this machine, for who is named none.

    Raises ConfigError when the port is taken, or Prometheus cannot be told of it.
    """
    config = plan.config.metrics
    if not config.serve:
        return
    from dashboards import published, records  # half a second of imports, which no refusal of a setting should wait for
    from dashboards.exporter import Exporter
    from dashboards.tally import Tally

    curves = {task.name: published.curve(task.name) for task in plan.tasks}

    def paper(task: str, steps: int) -> float | None:
        curve = curves[task]
        return None if curve is None else curve.at(steps)

    tally = Tally(plan.config.steps, plan.config.checkpoint_interval, paper)
    # A run that goes on has its checkpoints, deaths and evaluations of before: an alert asks for them.
    for row in records.read(session.folder.path / "events.jsonl"):
        tally.event(row)
    for row in records.read(session.folder.path / "eval.jsonl"):
        tally.evaluation(row)
    listens = config.address or address
    targets = Path(config.targets) if config.targets else Path(plan.config.runs_folder) / TARGETS
    try:
        exporter = Exporter(session.folder.name, tally, listens, config.port, targets)
    except OSError as error:
        if error.filename is not None:
            raise ConfigError(f"--metrics.targets {targets} cannot be written to: {error.strerror}") from error
        raise ConfigError(
            f"--metrics.port {config.port} of {listens} cannot be listened on: {error.strerror or error}; name "
            f"another, or 0 for any, or give --metrics.no-serve"
        ) from error
    session.records.mirrors.append(exporter)
    session.console.say(f"metrics for Prometheus at {exporter.url}")
