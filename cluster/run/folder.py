"""The folder of a run: its name, its lease, its configuration and the checkpoint that it can be resumed from."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import yaml

from actors.benchmarks.catalogue import nearest
from cluster.config import files
from cluster.config.fields import FIXED, flag, get
from cluster.config.paths import absolute
from cluster.config.schema import Config
from cluster.errors import ConfigError
from cluster.plan.plan import Plan
from cluster.plan.shapes import check_order, check_shapes
from cluster.run.blank import clear, is_blank, way_on
from cluster.run.identity import has_id, keep_apart, run_id, write_id
from cluster.run.kept import Kept
from cluster.run.manifest import Manifest, read_manifest, serial_options
from cluster.run.presence import Presence
from cluster.run.registry import Lease, Registry, find_registry
from cluster.run.stop import Stop
from dashboards.codec import decode, encode
from learner.state.checkpoint import CheckpointError, Checkpoints
from replay.json_text import json_text
from replay.snapshots.snapshot import Place, SnapshotError

REPORT = "report.html"


class RunFolder:
    """An open run, whose lease this process has. Within the `with` block it is connected to the registry."""

    def __init__(
        self,
        path: Path,
        registry: Registry,
        lease: Lease,
        checkpoints: Checkpoints,
        checkpoint: str,
        manifest: Manifest | None,
        replay_url: str,
    ) -> None:
        self.path = path
        self.name = path.name
        self.id = run_id(path)  # no other run ever has it
        known = registry.read(path.name, "takes", "kept")
        # How often replay has begun in this run before. Files of earlier times are out of date.
        self.takes = int(known.takes or 0)
        # The state that `keep` was last given.
        self.kept = decode(Kept, json.loads(known.kept)) if known.kept else None
        self.presence = Presence(registry, self.name, lease, Stop())
        self.replay_url = replay_url  # where replay's snapshots are
        self.checkpoints = checkpoints
        self.checkpoint = checkpoint  # the checkpoint to resume from, or ""
        self.manifest = manifest  # of this checkpoint

    def __enter__(self) -> RunFolder:
        self.presence.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self.presence.__exit__(*failure)

    def replay_taken(self, take: int) -> None:
        """Record that all shards have begun, for the `take`-th time."""
        self.presence.say(takes=str(take))

    def keep(self, state: Kept) -> None:
        """Record the state that a coordinator needs to take over from this one while all parts are alive."""
        self.presence.say(kept=json_text(encode(state)))


def open_run(plan: Plan, preset: str, again: bool = False) -> RunFolder:
    """Take the lease of a run, then create its folder or, with resume, check that it can go on.

    Args:
        again: whether a coordinator of this run, with this configuration, has died: the run goes on from its newest
            checkpoint, if it has one, and from the parts that are alive.

    Raises:
        ConfigError: a live run has the name, the run exists already, or its saved state does not fit the configuration.
        CheckpointError: the saved state is damaged.
    """
    config = plan.config
    runs = Path(config.runs_folder)
    if config.resume and not config.name:
        raise ConfigError("--resume needs --name, the run to go on with; `brc status` lists the runs")
    path, registry = runs / run_name(config, preset), find_registry(runs)
    restore_folder(path, registry)
    check_whole(config, path)
    if config.resume:
        existing_run(runs, config.name)
    existed = bool((path / "config.yaml").exists() or registry.read(path.name, "config").config)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--runs-folder {config.runs_folder}: cannot write there ({error})") from error
    lease = registry.lease(path.name)
    try:
        keep_apart(config, path, registry)
        checkpoints = run_checkpoints(config, path)
        if existed and not again and not config.resume:
            saved = absolute(load_config(path)[1])  # its files are where its own configuration says
            kept = run_checkpoints(saved, path)
            if not (is_blank(path, kept) and is_blank(path, checkpoints)):
                go_on = f"`brc resume {path.name}` goes on with it; or " if kept.names() else ""
                raise ConfigError(f"run {path.name} exists in {path.parent}: {go_on}choose another --name")
            clear(saved, path, registry)
            checkpoints = run_checkpoints(config, path)
        newest, manifest = begin_with(plan, path, checkpoints, again)
        text = files.dump(preset, replace(config, name=path.name, resume=False))
        temporary = path / "config.yaml.new"
        temporary.write_text(text)
        temporary.rename(path / "config.yaml")
        about = {"preset": preset, "config": text, "id": run_id(path), "folder": str(path.absolute())}
        if newest:
            about["checkpoint"] = checkpoints.url(newest)
        asked = {} if again else {"desired": "", "wish": "", "kept": ""}
        registry.write(path.name, state="running", reason="", **about, **asked)
    except BaseException:
        lease.release()
        raise
    return RunFolder(path, registry, lease, checkpoints, newest, manifest, replay_url(config, path))


def run_name(config: Config, preset: str) -> str:
    """Return the configured name, or a name made from the preset and the time."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", preset).strip("-.")
    return config.name or f"{plain or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}"


def restore_folder(path: Path, registry: Registry) -> None:
    """Make the folder of a registered run that has none here, as when the head was lost with its disk. The run's
    records are lost then; checkpoints stored elsewhere are not."""
    known = registry.read(path.name, "config", "id")
    if known.config and not (path / "config.yaml").exists():
        path.mkdir(parents=True, exist_ok=True)
        write_id(path, known.id)
        (path / "config.yaml").write_text(known.config)


def check_whole(config: Config, path: Path) -> None:
    """Raise ConfigError for a folder that has checkpoints or metrics of a run but no configuration: the files of a new
    run there would mix with them."""
    if (path / "config.yaml").exists():
        return
    places = [Checkpoints(str((path / "checkpoints").absolute()))]
    if has_id(path):
        places.append(run_checkpoints(config, path))
    if not all(is_blank(path, place) for place in places):
        what = "checkpoints" if any(place.names() for place in places) else "metrics"
        raise ConfigError(
            f"{path} has {what} of a run whose config.yaml is missing: restore it or choose another --name"
        )


def begin_with(plan: Plan, path: Path, checkpoints: Checkpoints, again: bool) -> tuple[str, Manifest | None]:
    """Return the checkpoint that a run goes on from, and its manifest; ("", None) for a run that begins anew."""
    if again:
        return newest_checkpoint(path, checkpoints) if checkpoints.names() else ("", None)
    if plan.config.resume:
        return check_resume(path, plan)
    return "", None


def run_checkpoints(config: Config, path: Path) -> Checkpoints:
    """Return the checkpoints of a run's learner."""
    named = config.learner.checkpoints.rstrip("/")
    return Checkpoints(f"{named}/{run_id(path)}/checkpoints" if named else str((path / "checkpoints").absolute()))


def replay_url(config: Config, path: Path) -> str:
    """Return the folder or URL of the snapshots of a run's replay."""
    named = config.replay.snapshots.rstrip("/")
    return f"{named}/{run_id(path)}/replay" if named else str((path / "replay").absolute())


def existing_run(runs: Path, name: str) -> Path:
    """Return the folder of an existing run. Raises ConfigError, with the nearest names, if there is none."""
    if not name:
        raise ConfigError(f"name a run, such as one of {run_names(runs) or 'those you will have'} in {runs}")
    if Path(name).name != name:
        raise ConfigError(f"{name!r} is a path: name a run of {runs}, and another folder of runs by --runs-folder")
    path = runs / name
    if not (path / "config.yaml").is_file():
        names = run_names(runs)
        raise ConfigError(
            f"there is no run {name!r} in {runs}; " + (nearest(name, names) if names else "it has no runs")
        )
    return path


def run_names(runs: Path) -> list[str]:
    return sorted(path.parent.name for path in runs.glob("[!.]*/config.yaml"))


def load_config(path: Path) -> tuple[str, Config]:
    """Return (preset, configuration) of a run. Raises ConfigError, naming the file, if it is damaged."""
    file = path / "config.yaml"
    try:
        return files.recorded(file.read_text())
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{file} is not a configuration of a run ({reason}); restore it, or start another run"
        ) from error


def check_resume(path: Path, plan: Plan) -> tuple[str, Manifest]:
    """Return the newest checkpoint and its manifest, if this configuration can go on from it. Raises ConfigError."""
    saved = absolute(load_config(path)[1])
    config = plan.config
    checkpoints = run_checkpoints(saved, path)
    if not checkpoints.names():
        raise ConfigError(f"run {path.name} has no checkpoint yet: {way_on(path, checkpoints)}")
    newest, manifest = newest_checkpoint(path, checkpoints)
    check_order(path.name, manifest.tasks, plan.tasks)
    for field in FIXED:
        old, new = get(saved, field), get(config, field)
        if old != new:
            raise ConfigError(f"{flag(field)}: run {path.name} has {old}, not {new}; resume with {flag(field)} {old}")
    check_shapes(path.name, manifest.shapes, plan.tasks)
    if config.execution == manifest.execution == "serial":
        for field, new in serial_options(config).items():
            old = manifest.options.get(field, new)
            if old != new:
                raise ConfigError(
                    f"{flag(field)}: run {path.name} goes on in lock step from {old}, not {new}; resume with "
                    f"{flag(field)} {old}, or with --execution distributed"
                )
    scored = has_score(path, plan)
    done = manifest.env_steps == config.steps and manifest.updates >= plan.total_updates and scored
    if done or config.steps < manifest.env_steps:
        raise ConfigError(
            f"--steps {config.steps}: run {path.name} has done {manifest.env_steps} already; ask for more"
        )
    checkpoints.verify(newest)
    try:
        Place(replay_url(config, path)).verify(manifest.replay)
    except SnapshotError as error:
        raise CheckpointError(
            f"{error}; without it the learner would go on with an empty replay, so the run does not: "
            f"{checkpoints.way_out(newest)}"
        ) from error
    return newest, manifest


def has_score(path: Path, plan: Plan) -> bool:
    """Whether the final policy of a run has been evaluated. Raises ConfigError for evaluations that cannot be read: the
    run that goes on would read them too."""
    from dashboards.sinks import records

    try:
        rows = records.read_evaluations(path)
    except records.RowUnreadable as error:
        raise ConfigError(str(error)) from error
    return any(not row.is_random and row.updates >= plan.total_updates for row in rows)


def newest_checkpoint(path: Path, checkpoints: Checkpoints) -> tuple[str, Manifest]:
    """Return a run's newest checkpoint, not yet verified, and its manifest. Raises ConfigError if there is none."""
    found = checkpoints.names()
    if not found:
        raise ConfigError(f"run {path.name} has no checkpoint yet")
    return found[-1], read_manifest(checkpoints, found[-1])
