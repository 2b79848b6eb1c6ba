"""`brc sweep`: search values of options, show a sweep, stop one, write its page."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from cluster.config.schema import RUNS
from cluster.errors import ConfigError
from cluster.study import search
from cluster.study.sweep import Sweep, load
from replay.store.locations import is_locked

Words = Annotated[tuple[str, ...], tyro.conf.Positional]
ACTIONS = ("status", "stop", "report")


def sweep(words: Words = (), trials: int = 0, at_once: int = 0, runs_folder: str = RUNS) -> int:
    """Search the space of a sweep: train trials until there are enough, then write a page of them.

    Args:
        words: a file such as mine.yaml, behind `status`, `stop` or `report` if that is wanted.
        trials: number of trials, in place of that of the file. The same command with more goes on.
        at_once: runs at a time; 0 is as many as this machine has room for.
        runs_folder: where runs are. The sweep's page and outputs are in `sweeps` there.
    """
    action, *rest = words if words and words[0] in ACTIONS else ("run", *words)
    if len(rest) != 1:
        raise ConfigError(f"brc sweep {'' if action == 'run' else action + ' '}needs one file, such as mine.yaml")
    search.check_installed()
    found = load(Path(rest[0]))
    if trials < 0 or at_once < 0:
        raise ConfigError(f"--trials {trials} and --at-once {at_once} must be 0 or more")
    if trials and found.sampler == "grid":
        raise ConfigError(f"--trials {trials}: a grid has {found.trials} trials, its choices; leave it out")
    found = replace(found, trials=trials or found.trials)
    runs, folder = str(Path(runs_folder).absolute()), search.folder_of(found, runs_folder)
    live = (folder / "lock").exists() and is_locked(folder / "lock")
    if action == "stop":
        if not live:
            raise ConfigError(f"sweep {found.name} is not being run")
        (folder / "stop").touch()
        print(f"sweep {found.name} stops when its live runs have written their checkpoints")
        return 0
    if action == "run":
        code = search.run(found, runs, at_once, lambda text: print(text, flush=True))
    elif not (folder / search.JOURNAL).exists():
        raise ConfigError(f"sweep {found.name} has not begun; begin it with `brc sweep {rest[0]}`")
    else:
        code = 0
    study = search.open_study(found, folder)
    show(found, study, runs)
    if action == "status":
        print("its driver is live" if live else "nothing drives it now")
        return 0
    made = page(found, study, folder)
    return code or made


def show(found: Sweep, study: Any, runs_folder: str) -> None:
    """Print how many trials there are of each state, and the best of them."""
    counts = Counter(trial.state.name.lower() for trial in study.get_trials(deepcopy=False))
    print(f"{found.name}: {', '.join(f'{count} {state}' for state, count in counts.items())}")
    if counts["complete"]:
        best = study.best_trial
        name = found.member(best.number, best.params, runs_folder).name
        print(f"best: {name}, score {best.value:.3f}: {search.in_words(best.params)}")
        print(f"train with it: brc train --config {Path(runs_folder) / name / 'config.yaml'} --seed 1")


def page(found: Sweep, study: Any, folder: Path) -> int:
    """Write the page of a sweep; it needs a trial that is done."""
    if not any(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.get_trials(deepcopy=False)):
        print("no trial has a score yet, so there is no page")
        return 1
    from cluster.study.sweep_page import write  # it imports matplotlib

    print(write(found, study, folder))
    return 0
