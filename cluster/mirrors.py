"""Where a run's records are shown besides its folder, as its configuration says."""

from __future__ import annotations

from pathlib import Path

from cluster.config import MetricsConfig
from cluster.errors import ConfigError
from cluster.plan import Plan
from cluster.session import Session

LOCAL = "127.0.0.1"
TARGETS = ".prometheus"  # no run can have this name


def show(session: Session, plan: Plan, address: str) -> None:
    """Have Prometheus answered, if that is wanted, and say where. `address` is of this machine, for who is named none.

    Raises ConfigError when the port is taken.
    """
    config = plan.config.metrics
    if not config.serve:
        return
    from dashboards import published  # half a second of imports, which no refusal of a setting should wait for
    from dashboards.exporter import Exporter
    from dashboards.tally import Tally

    curves = {task.name: published.curve(task.name) for task in plan.tasks}

    def paper(task: str, steps: int) -> float | None:
        curve = curves[task]
        return None if curve is None else curve.at(steps)

    tally = Tally(plan.config.steps, plan.config.checkpoint_interval, paper)
    listens = config.address or address
    targets = targets_folder(config, Path(plan.config.runs_folder))
    try:
        exporter = Exporter(session.folder.name, tally, listens, config.port, targets)
    except OSError as error:
        raise ConfigError(
            f"--metrics.port {config.port} of {listens} cannot be listened on: {error.strerror or error}; name "
            f"another, or 0 for any, or give --metrics.no-serve"
        ) from error
    session.records.mirrors.append(exporter)
    session.console.say(f"metrics for Prometheus at {exporter.url}")


def targets_folder(config: MetricsConfig, runs: Path) -> Path:
    """Where Prometheus is told of runs."""
    return Path(config.targets) if config.targets else runs / TARGETS
