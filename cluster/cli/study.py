"""`brc study`: run a study, list studies, show one, stop one, write its page."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import tyro

from cluster.cli.commands import ago
from cluster.config.schema import RUNS
from cluster.errors import ConfigError
from cluster.run.folder import REPORT
from cluster.run.registry import find_registry
from cluster.study import driver
from cluster.study.study import Member, Study, find, narrowed, shipped
from dashboards.report.runs import Run
from replay.store.locations import is_locked

Words = Annotated[tuple[str, ...], tyro.conf.Positional]
ACTIONS = ("list", "status", "stop", "report")


def study(
    words: Words = (), seeds: tuple[int, ...] = (), at_once: int = 0, output: str = "", runs_folder: str = RUNS
) -> int:
    """Run a study: train its runs that are not done, then write a page that compares its variants.

    Args:
        words: a shipped study or a file such as mine.yaml. Or `list`; or `status`, `stop` or `report` and a study.
        seeds: seeds in place of those of the study.
        at_once: runs at a time; 0 is as many as this machine has room for.
        output: the page to write; empty is report.html in the study's folder.
        runs_folder: where runs are. The study's page and outputs are in `studies` there.
    """
    action, *rest = words if words and words[0] in ACTIONS else ("run", *words)
    if action == "list" and not rest:
        for name in shipped():
            print(f"{name:26s} {find(name).about}")
        return 0
    if action == "list" or len(rest) != 1:
        needs = "needs no more words" if action == "list" else "needs one study; see `brc study list`"
        raise ConfigError(f"brc study {'' if action == 'run' else action + ' '}{needs}")
    found = narrowed(find(rest[0]), seeds)
    members = found.members(str(Path(runs_folder).absolute()))
    match action:
        case "status":
            return status(found, members)
        case "stop":
            return stop(found, runs_folder)
        case "report":
            return page(found, members, output)
    return conduct(found, members, at_once, output)


def conduct(found: Study, members: list[Member], at_once: int, output: str = "") -> int:
    """Train the runs that are not done, then write the page."""
    if at_once < 0:
        raise ConfigError(f"--at-once {at_once}: it must be 0 or more")
    code = driver.run(found, members, at_once, lambda text: print(text, flush=True))
    page(found, members, output)
    return code


def status(found: Study, members: list[Member]) -> int:
    """Print the state of each run of a study."""
    registry = find_registry(Path(members[0].config.runs_folder))
    states = {member.name: driver.state_of(registry, member) for member in members}
    counts = Counter(states.values())
    folder = driver.folder_of(found, members[0].config.runs_folder)
    live = (folder / "lock").exists() and is_locked(folder / "lock")
    print(f"{found.name}: {', '.join(f'{count} {state}' for state, count in counts.items())}; {found.about}")
    print("its driver is live" if live else "nothing drives it now")
    for member in members:
        entry = registry.read(member.name, "line", "heartbeat")
        heard = f" ({ago(float(entry.heartbeat))})" if entry.heartbeat else ""
        print(f"  {member.name}: {states[member.name]}{heard} {entry.line}".rstrip())
    return 0


def stop(found: Study, runs_folder: str) -> int:
    """Ask the process that runs a study to stop its runs and to end."""
    folder = driver.folder_of(found, runs_folder)
    if not (folder / "lock").exists() or not is_locked(folder / "lock"):
        raise ConfigError(f"study {found.name} is not being run")
    (folder / "stop").touch()
    print(f"study {found.name} stops when its live runs have written their checkpoints")
    return 0


def loaded_variants(found: Study, members: list[Member]) -> dict[str, list[Run]]:
    """Return the runs of each variant that have begun, with those of single tasks together."""
    from dashboards.report.runs import load, merged

    registry = find_registry(Path(members[0].config.runs_folder))
    every: dict[tuple[str, int], list[Member]] = {}
    for member in members:
        every.setdefault((member.variant, member.config.seed), []).append(member)
    loaded: dict[str, list[Run]] = {}
    for (variant, seed), parts in every.items():
        known = [one for one in parts if (driver.folder_of_run(one) / "config.yaml").is_file()]
        runs = [load(driver.folder_of_run(one), driver.state_of(registry, one)) for one in known]
        if len(parts) > 1 and not (len(known) == len(parts) and all(run.evaluations for run in runs)):
            print(f"{found.run_name(variant, seed)} is left out: {len(known)} of its {len(parts)} runs have begun")
        elif runs:
            one = runs[0] if len(runs) == 1 else merged(found.run_name(variant, seed), runs)
            loaded.setdefault(variant, []).append(one)
    return loaded


def page(found: Study, members: list[Member], output: str) -> int:
    """Write the page of a study: its variants side by side."""
    loaded = loaded_variants(found, members)
    if not loaded:
        print("no run has begun yet, so there is no page")
        return 1
    from dashboards.report.page import write_series  # it imports matplotlib

    file = Path(output) if output else driver.folder_of(found, members[0].config.runs_folder) / REPORT
    write_series(loaded, file, f"{found.name}: {found.about}", found.score)
    print(file)
    return 0
