"""`brc compare`, `brc copy` and `brc delete`: what to do with runs that are there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from cluster.config import files
from cluster.config.changes import differing
from cluster.config.fields import get
from cluster.config.schema import RUNS, Config
from cluster.errors import ConfigError
from cluster.preflight.validation import check_name
from cluster.run.blank import give_up_replay
from cluster.run.folder import existing_run, load_config
from cluster.run.identity import places_by_id, run_id
from cluster.run.registry import Registry, find_registry
from dashboards.events import Begun
from dashboards.sinks import records
from replay.urls import open_url, remove

Names = Annotated[tuple[str, ...], tyro.conf.Positional]
NOT_COPIED = ("lock", "live", "registry", "id", "report.html", "films", "policy")


def compare(runs: Names = (), runs_folder: str = RUNS) -> int:
    """Print the options, and the versions of code and packages, in which two runs differ.

    Args:
        runs: names of two runs.
        runs_folder: where runs are.
    """
    if len(runs) != 2:
        raise ConfigError("brc compare needs two runs; `brc status` lists them")
    paths = [existing_run(Path(runs_folder).absolute(), run) for run in runs]
    (one_preset, one), (other_preset, other) = (load_config(path) for path in paths)
    rows = [("preset", one_preset, other_preset)] if one_preset != other_preset else []
    rows += [(path, get(one, path), get(other, path)) for path in differing(one, other) if path != "name"]
    began, also = (versions(path) for path in paths)
    names = sorted({*began, *also})
    rows += [(name, began.get(name, ""), also.get(name, "")) for name in names if began.get(name) != also.get(name)]
    for name, left, right in rows:
        print(f"{name:34s} {shown(left):30s} {shown(right)}")
    if not rows:
        print("they have the same options and versions")
    return 0


def versions(path: Path) -> dict[str, str]:
    """Return the versions with which a run last began."""
    begun = [entry.event for entry in records.read_events(path) if isinstance(entry.event, Begun)]
    if not begun:
        return {}
    return {"python": begun[-1].python, "brc": begun[-1].version, "commit": begun[-1].commit, **begun[-1].versions}


def shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def copy(
    run: Annotated[str, tyro.conf.Positional] = "",
    name: Annotated[str, tyro.conf.Positional] = "",
    runs_folder: str = RUNS,
) -> int:
    """Copy a run that is not live, with its checkpoints, its replay and its records. The copy goes on by itself.

    Args:
        run: the run to copy.
        name: the name of the copy.
        runs_folder: where runs are.
    """
    runs = Path(runs_folder).absolute()
    path = existing_run(runs, run)
    preset, config = load_config(path)
    for option, place in places_by_id(config).items():
        raise ConfigError(
            f"run {run} has its state in {option} {place}, which brc copy leaves alone: begin with what it has "
            "learned by `brc add-task`"
        )
    if not name:
        raise ConfigError(f"brc copy {run} needs a name for the copy")
    check_name(replace(config, name=name))
    target, registry = runs / name, find_registry(runs)
    if target.exists() or name in registry.names():
        raise ConfigError(f"{target} is there already: choose another name")
    lease = registry.lease(run)
    part = runs / f".{name}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(path, part, ignore=lambda folder, names: NOT_COPIED if Path(folder) == path else ())
        text = files.dump(preset, replace(config, name=name))
        (part / "config.yaml").write_text(text)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        lease.release()
    known = registry.read(run)
    about = {"state": known.state, "reason": known.reason, "takes": known.takes, "scores": known.scores}
    registry.write(name, **about, preset=preset, config=text, folder=str(target), id=run_id(target))
    print(target)
    return 0


def delete(runs: Names = (), runs_folder: str = RUNS) -> int:
    """Delete runs that are not live: their folders, and their checkpoints and snapshots wherever these are.

    Args:
        runs: their names. They cannot be had back.
        runs_folder: where runs are.
    """
    folder = Path(runs_folder).absolute()
    if not runs:
        raise ConfigError("brc delete needs runs; `brc status` lists them")
    registry = find_registry(folder)
    paths = [existing_run(folder, run) for run in dict.fromkeys(runs)]
    for path in paths:
        if path.is_symlink():
            raise ConfigError(f"{path} is a link: remove it, or delete the run where it is")
    configs = [load_config(path)[1] for path in paths]  # all or none
    leases = []
    try:
        leases = [registry.lease(path.name) for path in paths]
        for path, config in zip(paths, configs, strict=True):
            remove_run(path, config, registry)
            print(f"{path.name} is deleted")
    finally:
        for lease in leases:
            lease.release()
    return 0


def remove_run(path: Path, config: Config, registry: Registry) -> None:
    """Remove all that belongs to a run whose lease this process has. Its configuration goes last, so that what was
    interrupted can be done again."""
    give_up_replay(config, path)
    for place in places_by_id(config).values():
        at, root = open_url(f"{place.rstrip('/')}/{run_id(path)}")
        if at.exists(root):
            remove(at, root)
    for inner in path.iterdir():
        if inner.is_dir() and not inner.is_symlink():
            shutil.rmtree(inner)
        elif inner.name not in ("config.yaml", "id", "lock"):
            inner.unlink()
    registry.forget(path.name)
    (path / "id").unlink(missing_ok=True)
    (path / "config.yaml").unlink()
    shutil.rmtree(path)
