"""`brc train` on the cluster that RAY_ADDRESS names: start the run there and follow its console.

The run continues when the follower ends, for example after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import ray

from actors.benchmarks.catalogue import resolve
from cluster.backend.nodes import check_nodes, cluster_machine, declared_roles, total, wait_for_nodes
from cluster.backend.parts import NAMESPACE, Parts
from cluster.config.changes import differing
from cluster.config.fields import flag
from cluster.config.schema import Config
from cluster.errors import ConfigError
from cluster.plan.plan import actor_counts
from cluster.preflight.origin import check_origin
from cluster.preflight.ray_address import check_answers
from cluster.preflight.validation import check_bounds, check_name, validate
from cluster.process import CONSOLE, begun, find_coordinator, start_coordinator
from cluster.run.folder import run_name
from cluster.run.registry import Registry, RegistryAway, find_registry

EXIT_CODES = {"finished": 0, "failed": 1, "stopped": 130}
LOOK_S = 0.5
ABSENCE_S = 1200.0  # longest absence of a coordinator; a restarted one may wait for nodes almost as long
SHOWN_BYTES = 20_000


def train_on_cluster(config: Config, preset: str) -> int:
    """Start the run, or follow it if it is already live with this configuration. Return its exit code.

    Raises ConfigError if the configuration cannot work, or if a run of this name is live with another configuration.
    """
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise ConfigError(
            "RAY_AUTH_MODE is not token: this cluster would obey whoever reaches it; start it with "
            "cluster/deploy/node.sh"
        )
    if config.execution == "serial":
        raise ConfigError("--execution serial is for one process: leave it out on a cluster")
    check_bounds(config)
    check_name(config)
    registry = find_registry(Path(config.runs_folder))
    registry.names()  # an unreachable registry raises here, before the run starts
    with connected():
        parts = Parts("", declared_roles())
        config = replace(config, name=run_name(config, preset))
        living = find_coordinator(config.name)
        if living is None:
            wait_for_nodes(parts, print)
            config, given = fitted(config, parts), config
            plan = validate(config, cluster_machine(parts))
            check_origin(plan)
            check_nodes(plan, parts)
            start_coordinator(config, given, preset)
        else:
            begun(living)
            other: Config = ray.get(living.configuration.remote())
            changes = [flag(path) for path in differing(other, config) if path != "resume"]
            if changes:
                raise ConfigError(
                    f"run {config.name} is live with another {', '.join(changes)}: choose another --name, or stop it "
                    f"with `brc stop {config.name}`"
                )
            print(f"run {config.name} is live already; this follows it", flush=True)
    return follow(registry, config.name)


@contextmanager
def connected() -> Iterator[None]:
    """Connect to Ray inside the block. A follower needs no connection. Raises ConfigError if Ray refuses it."""
    address = os.environ["RAY_ADDRESS"]
    check_answers(address)
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="WARNING")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())[:500]
        raise ConfigError(f"RAY_ADDRESS {address}: this cluster does not let us in ({reason})") from error
    try:
        yield
    finally:
        ray.shutdown()


def fitted(config: Config, parts: Parts) -> Config:
    """Return the configuration with defaults from the cluster: store of checkpoints, device, actors for its CPUs."""
    store = os.environ.get("BRC_STORE", "")
    learner, replay = config.learner, config.replay
    learner = replace(learner, checkpoints=learner.checkpoints or store)
    if learner.device == "auto":  # chosen now: a node with GPUs that joins later must not change it
        learner = replace(learner, device="cuda" if cluster_machine(parts).gpus else "cpu")
    cores = int(total(parts, "actors", "CPU")) - ("actors" not in parts.roles)
    counts = actor_counts(config, resolve(config.tasks), max(1, cores))
    of = config.actors.of | {f"{benchmark}.count": float(count) for benchmark, count in counts.items()}
    return replace(
        config,
        runs_folder=str(Path(config.runs_folder).absolute()),
        learner=learner,
        replay=replace(replay, snapshots=replay.snapshots or store),
        actors=replace(config.actors, of=of),
    )


def follow(registry: Registry, run: str) -> int:
    """Show the end of a run's console, then new lines until the run ends. Return its exit code."""
    folder = registry.read(run, "folder").folder
    file = Path(folder) / CONSOLE
    if not folder or not file.exists():
        raise ConfigError(f"run {run} has no console in {file}: it was started in a terminal, or on another host")
    with file.open() as console:
        if file.stat().st_size > SHOWN_BYTES:
            console.seek(file.stat().st_size - SHOWN_BYTES)
            console.readline()
        ended = False
        conducted_at = time.monotonic()
        while True:
            with suppress(RegistryAway):
                state = registry.read(run, "state").state
                ended = state in EXIT_CODES and not registry.owner(run)
                if registry.owner(run):
                    conducted_at = time.monotonic()
            sys.stdout.write(console.read())
            sys.stdout.flush()
            if ended:
                return EXIT_CODES[state]
            if time.monotonic() - conducted_at > ABSENCE_S:
                raise ConfigError(
                    f"nobody has conducted run {run} for {ABSENCE_S / 60:.0f} minutes: its cluster may be gone; "
                    f"`brc remote resume {run}` goes on with it"
                )
            time.sleep(LOOK_S)
