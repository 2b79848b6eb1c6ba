"""Shows a run's records in Prometheus and Weights & Biases, besides its folder, as its configuration says."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from cluster.config.paths import check_writable
from cluster.config.schema import Config
from cluster.errors import ConfigError
from cluster.plan.plan import Plan
from cluster.run.session import Session
from dashboards.events import MirrorFailed

if TYPE_CHECKING:
    from dashboards.metrics.exporter import Exporter

T = TypeVar("T")
LOCAL = "127.0.0.1"
TARGETS = ".prometheus"  # no run can have this name


def check_mirrors(config: Config, address: str = LOCAL) -> None:
    """Check, before a run begins, that the mirrors it names can be made. Raises ConfigError. Later, or where a run goes
    on by itself, a mirror that cannot be made is only an event."""
    if config.metrics.serve:
        if config.metrics.targets:
            check_writable("--metrics.targets", config.metrics.targets)
        check_port(config.metrics.address or address, config.metrics.port)
    if config.wandb:
        check_wandb(config)


def check_port(address: str, port: int) -> None:
    try:
        with socket.create_server((address, port)):
            pass
    except OSError as error:
        raise ConfigError(
            f"--metrics.port {port} of {address} cannot be listened on: {error.strerror or error}, by a live run "
            f"perhaps; name another, or 0 for any, or give --metrics.no-serve"
        ) from error


def check_wandb(config: Config) -> None:
    """Check that the project has a valid name, and that the package and a key are there. Raises ConfigError."""
    if not re.fullmatch(r"([^/\\#?%:\s]+/)?[^/\\#?%:]{1,128}", config.wandb):
        raise ConfigError(f"--wandb {config.wandb!r} is not a project, such as brc or team/brc")
    if importlib.util.find_spec("wandb") is None:
        raise ConfigError(f"--wandb {config.wandb} needs the package wandb: pip install wandb")
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled") or os.environ.get("WANDB_API_KEY"):
        return
    try:
        known = netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, NetrcParseError):
        known = None
    if known is None:
        raise ConfigError(
            f"--wandb {config.wandb}: there is no key for {host}: run `wandb login`, or set WANDB_API_KEY, or "
            "WANDB_MODE=offline to send it later"
        )


def show(session: Session, plan: Plan, address: str) -> Exporter | None:
    """Begin the configured mirrors, and print where they are. Return the exporter for Prometheus, if there is one.

    `address` is this machine's, for a configuration without an address. A mirror that cannot be made is reported, and
    the run goes on without it."""
    exporter = None
    if plan.config.metrics.serve:
        exporter = told(session, "Prometheus cannot ask this run", "Exporter", lambda: serve(session, plan, address))
    if plan.config.wandb:
        told(session, "Weights & Biases does not take the run", "WandB", lambda: send(session, plan))
    return exporter


def told(session: Session, what: str, name: str, begin: Callable[[], T]) -> T | None:
    try:
        return begin()
    except Exception as error:  # wandb raises several kinds, not all of them its own
        session.records.event(MirrorFailed(reason=f"{type(error).__name__}: {error}", mirror=name))
        session.console.say(f"{what}: {error}")
        return None


def send(session: Session, plan: Plan) -> None:
    from dashboards.sinks.wandb import WandB

    folder = session.folder
    mirror = WandB(folder.path, folder.name, folder.id, plan.config.wandb, asdict(plan.config))
    session.records.mirrors.append(mirror)
    session.console.say(f"metrics for Weights & Biases at {mirror.run.url or mirror.run.dir}")


@contextmanager
def ray_shown(plan: Plan, session: Session) -> Iterator[None]:
    """Let Prometheus find the Ray that this process is connected to, for as long as the block lasts."""
    if not plan.config.metrics.serve:
        yield
        return
    import ray

    from dashboards.metrics.exporter import write_target

    file = targets(plan) / "ray" / f"{session.folder.name}.json"
    asked_at = f"{LOCAL}:{ray.nodes()[0]['MetricsExportPort']}"
    told(session, "Prometheus cannot ask this run's Ray", "Ray", lambda: write_target(file, asked_at, {}))
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()


def targets(plan: Plan) -> Path:
    """Return the folder where Prometheus finds its targets."""
    named = plan.config.metrics.targets
    return Path(named) if named else Path(plan.config.runs_folder) / TARGETS


def serve(session: Session, plan: Plan, address: str) -> Exporter:
    """Start the exporter for Prometheus, and write its address to the targets."""
    config = plan.config.metrics
    from dashboards.metrics.exporter import Exporter
    from dashboards.metrics.tally import State, Tally
    from dashboards.report import published
    from dashboards.sinks import records

    curves = {task.name: (published.curve(task.name), task.action_repeat) for task in plan.tasks}

    def paper(task: str, steps: int) -> float | None:
        curve, repeat = curves[task]
        return None if curve is None else curve.at(repeat * steps)

    tally = Tally(State(plan.config.steps, plan.total_updates, plan.config.checkpoint_interval), paper)
    # A resumed run also counts its earlier checkpoints, deaths and evaluations: an alert needs them.
    for entry in records.read_events(session.folder.path):
        tally.event(entry)
    for row in records.read_evaluations(session.folder.path):
        tally.evaluation(row)
    exporter = Exporter(session.folder.name, tally, config.address or address, config.port, targets(plan))
    session.records.mirrors.append(exporter)
    session.console.say(f"metrics for Prometheus at {exporter.url}")
    return exporter
