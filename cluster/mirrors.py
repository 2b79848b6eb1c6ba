"""Where a run's records are shown besides its folder, as its configuration says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from cluster.errors import ConfigError
from cluster.plan import Plan
from cluster.session import Session

LOCAL = "127.0.0.1"
TARGETS = ".prometheus"  # no run can have this name


def show(session: Session, plan: Plan, address: str) -> None:
    """Begin the mirrors that are wanted, and say where they are. `address` is of this machine, for who is named none.

    Raises ConfigError when the port is taken, or Prometheus cannot be told of it.
    """
    if plan.config.metrics.serve:
        serve(session, plan, address)
    if plan.config.wandb:
        send(session, plan)


def send(session: Session, plan: Plan) -> None:
    """To Weights & Biases. A server out of reach is told, and the run goes on without it."""
    from dashboards.wandb import WandB

    try:
        mirror = WandB(
            session.folder.path, session.folder.name, session.folder.id, plan.config.wandb, asdict(plan.config)
        )
    except Exception as error:  # wandb has several kinds, of which not all are its own
        session.records.event("mirror_failed", f"{type(error).__name__}: {error}", mirror="WandB")
        session.console.say(f"Weights & Biases does not take the run: {error}")
        return
    session.records.mirrors.append(mirror)
    session.console.say(f"metrics for Weights & Biases at {mirror.run.url or mirror.run.dir}")


@contextmanager
def ray_shown(plan: Plan, run: str) -> Iterator[None]:
    """Have Prometheus find, for as long as the block lasts, the Ray that this process is connected to."""
    if not plan.config.metrics.serve:
        yield
        return
    import ray

    from dashboards.exporter import write_target

    file = targets(plan) / "ray" / f"{run}.json"
    write_target(file, f"{LOCAL}:{ray.nodes()[0]['MetricsExportPort']}", {})
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def targets(plan: Plan) -> Path:
    """Where Prometheus finds whom to ask."""
    named = plan.config.metrics.targets
    return Path(named) if named else Path(plan.config.runs_folder) / TARGETS


def serve(session: Session, plan: Plan, address: str) -> None:
    """Answer Prometheus, and tell it where."""
    config = plan.config.metrics
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
    place = targets(plan)
    try:
        exporter = Exporter(session.folder.name, tally, listens, config.port, place)
    except OSError as error:
        if error.filename is not None:
            raise ConfigError(f"--metrics.targets {place} cannot be written to: {error.strerror}") from error
        raise ConfigError(
            f"--metrics.port {config.port} of {listens} cannot be listened on: {error.strerror or error}; name "
            f"another, or 0 for any, or give --metrics.no-serve"
        ) from error
    session.records.mirrors.append(exporter)
    session.console.say(f"metrics for Prometheus at {exporter.url}")
