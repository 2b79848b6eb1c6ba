"""Searches the space of a sweep with Optuna: asks it for values, trains a run with them, and tells it the scores."""

from __future__ import annotations

import importlib.util
import signal
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from threading import Event
from typing import Any

from cluster.errors import ConfigError
from cluster.preflight.validation import check
from cluster.run.registry import Registry, find_registry
from cluster.study import driver
from cluster.study.study import Member
from cluster.study.sweep import Range, Space, Sweep
from dashboards.rows import EvaluationRow
from dashboards.sinks import records

FOLDER = "sweeps"  # below the folder of runs
JOURNAL = "optuna.log"
REDUCTION = 3  # ASHA: of so many trials one goes on beyond a rung
INSTALL = "pip install optuna"


def check_installed() -> None:
    """Raise ConfigError if Optuna is missing."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(f"brc sweep searches with Optuna, which is not installed: {INSTALL}")


def folder_of(sweep: Sweep, runs_folder: str) -> Path:
    return Path(runs_folder).absolute() / FOLDER / sweep.name


def open_study(sweep: Sweep, folder: Path) -> Any:
    """Return the sweep's Optuna study, with the trials that it has so far. Raises ConfigError if these had another
    space."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
            study_name=sweep.name,
            load_if_exists=True,
            direction="maximize",
            sampler=_sampler(sweep),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION),
        )
    asked = {"preset": sweep.preset, "options": repr(sweep.options), "space": repr(sweep.space)}
    for name, value in asked.items():
        if study.user_attrs.get(name, value) != value:
            raise ConfigError(
                f"sweep {sweep.name} was begun with another {name}: give the file another name, or delete {folder} and "
                f"the runs {sweep.name}-*"
            )
        study.set_user_attr(name, value)
    if sweep.sampler == "grid":
        for values in product(*(made for made in sweep.space.values() if not isinstance(made, Range))):
            study.enqueue_trial(dict(zip(sweep.space, values, strict=True)), skip_if_exists=True)
    return study


def _sampler(sweep: Sweep) -> Any:
    from optuna import samplers

    match sweep.sampler:
        case "random" | "grid":  # a grid's trials are all queued when it begins
            return samplers.RandomSampler(seed=sweep.seed)
        case "gp":
            return samplers.GPSampler(seed=sweep.seed)
        case "qmc":
            return samplers.QMCSampler(seed=sweep.seed)
    # Trials that go on count as if they were bad, so that those beside them are not alike.
    return samplers.TPESampler(seed=sweep.seed, constant_liar=True)


def drawn(trial: Any, space: Space) -> dict[str, Any]:
    """Return the values of a trial, which the sampler draws now or has drawn before."""
    found: dict[str, Any] = {}
    for path, made in space.items():
        if not isinstance(made, Range):
            found[path] = trial.suggest_categorical(path, list(made))
        elif isinstance(made.low, int) and isinstance(made.high, int):
            found[path] = trial.suggest_int(path, made.low, made.high, log=made.log, step=int(made.step or 1))
        else:
            found[path] = trial.suggest_float(path, made.low, made.high, log=made.log, step=made.step)
    return found


def in_words(values: Mapping[str, Any]) -> str:
    """Return values of options as text."""
    shown = {path: f"{value:.4g}" if isinstance(value, float) else str(value) for path, value in values.items()}
    return ", ".join(f"{path} {value}" for path, value in shown.items())


@dataclass
class Trial:
    """A trial whose run goes on."""

    asked: Any  # Optuna's trial
    going: driver.Going
    reported: int  # evaluations that Optuna was told
    size: int = -1  # of the file of evaluations when it was read
    pruned: bool = False


def run(sweep: Sweep, runs_folder: str, at_once: int, say: Callable[[str], None]) -> int:
    """Train trials until there are as many as the sweep has, those that were interrupted first. Return 0 if all ended,
    130 if the sweep was stopped, 1 if a run failed."""
    folder, registry = folder_of(sweep, runs_folder), find_registry(Path(runs_folder))
    plan = check(sweep.member(0, _examples(sweep.space), runs_folder).config)
    at_once = at_once or driver.room([plan])
    stopped = Event()
    with driver.held(f"sweep {sweep.name}", folder), driver.stopping(stopped):
        study = open_study(sweep, folder)
        check_names(sweep, study, runs_folder)
        done = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
        say(f"sweep {sweep.name}: {sweep.trials} trials, {done} done, {at_once} at a time")
        failed = _drive(sweep, study, runs_folder, at_once, plan.config.learner.ranks, registry, stopped, say)
        if left := [trial.number for trial in study.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]:
            say(f"not done: {', '.join(map(sweep.run_name, left))}; the same command goes on")
    return 130 if stopped.is_set() else int(failed or bool(left))


def begun(study: Any) -> int:
    """Return the number of trials that were begun, those that have ended included. A grid's others wait."""
    return sum(trial.state.name != "WAITING" for trial in study.get_trials(deepcopy=False))


def check_names(sweep: Sweep, study: Any, runs_folder: str) -> None:
    """Raise ConfigError if a run has the name of a trial that was not begun yet: it had other values."""
    names = [sweep.run_name(number) for number in range(begun(study), sweep.trials)]
    taken = [name for name in names if (Path(runs_folder) / name).exists()]
    if taken:
        raise ConfigError(
            f"run {taken[0]} is there already, and not of this sweep: give the file another name, or `brc delete "
            f"{' '.join(taken)}`"
        )


def _examples(space: Space) -> dict[str, Any]:
    """Return values of the largest trial, as far as ranges and choices tell."""
    return {path: made.high if isinstance(made, Range) else made[-1] for path, made in space.items()}


def _drive(
    sweep: Sweep,
    study: Any,
    runs_folder: str,
    at_once: int,
    ranks: int,
    registry: Registry,
    stopped: Event,
    say: Callable[[str], None],
) -> bool:
    """Train the trials; return whether a run failed. Whatever happens, no run goes on when this returns or raises."""
    import optuna

    folder, going, failed = folder_of(sweep, runs_folder), list[Trial](), False
    again = [
        optuna.trial.Trial(study, trial._trial_id)
        for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
    ]

    def begin() -> bool:
        """Begin a trial, if one is left."""
        if not again and begun(study) >= sweep.trials:
            return False
        asked = again.pop(0) if again else study.ask()
        values = drawn(asked, sweep.space)
        try:
            member = sweep.member(asked.number, values, runs_folder)
            check(member.config)
        except ConfigError as error:  # values that do not go together
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
            say(f"trial {asked.number} cannot be: {error}")
            return True
        place = next(place for place in range(at_once) if place not in {one.going.place for one in going})
        known = study.get_trials(deepcopy=False)[asked.number].intermediate_values
        if driver.state_of(registry, member) == "done":  # it ended when nobody looked
            _tell(study, asked, member)
        else:
            going.append(Trial(asked, driver.begin(member, folder, place, ranks, registry), len(known)))
            say(f"{member.name} begins: {in_words(values)}")
        return True

    try:
        while True:
            while len(going) < at_once and not stopped.is_set() and begin():
                pass
            if not going:
                return failed
            time.sleep(driver.POLL_S)
            if (folder / "stop").exists():
                stopped.set()
            for one in going:
                if stopped.is_set():
                    driver.ask(one.going)
                elif _report(one) and sweep.prune and one.asked.should_prune():
                    one.pruned = True
                    driver.ask(one.going)
            for one in [one for one in going if one.going.process.poll() is not None]:
                going.remove(one)
                one.going.output.close()
                failed |= _ended(study, one, folder, registry, say)
    finally:
        for one in going:
            driver.ask(one.going)
        for one in going:
            one.going.process.wait()


def scores(member: Member) -> list[float]:
    """Return what is searched for, of each of a run's evaluations so far: the mean score over tasks, or the mean return
    where tasks have no score. Evaluations with neither, as after bad numbers, are left out."""
    rows: list[EvaluationRow] = records.read_evaluations(driver.folder_of_run(member))
    found = [row.score_mean if row.score_mean is not None else mean_return(row) for row in rows if not row.is_random]
    return [value for value in found if value is not None]


def mean_return(row: EvaluationRow) -> float | None:
    returns = [value for value in row.mean_return.values() if value is not None]
    return sum(returns) / len(returns) if len(returns) == len(row.mean_return) > 0 else None


def _report(one: Trial) -> bool:
    """Tell Optuna the evaluations that are new; return whether there are some."""
    file = driver.folder_of_run(one.going.member) / "eval.jsonl"
    size = file.stat().st_size if file.exists() else -1
    if size == one.size:
        return False
    one.size = size
    new = scores(one.going.member)[one.reported :]
    for score in new:
        one.reported += 1
        one.asked.report(score, one.reported)
    return bool(new)


def _ended(study: Any, one: Trial, folder: Path, registry: Registry, say: Callable[[str], None]) -> bool:
    """Tell Optuna how a trial ended; return whether its run failed."""
    import optuna

    code, name = one.going.process.returncode, one.going.member.name
    if code == -signal.SIGINT and one.going.asked:  # it was leaving already
        code = 0 if driver.state_of(registry, one.going.member) == "done" else 130
    if one.pruned and code in (0, 130):
        study.tell(one.asked, state=optuna.trial.TrialState.PRUNED)
        say(f"{name} is pruned after {one.reported} evaluations, score {scores(one.going.member)[-1]:.3f}")
    elif code == 0:
        say(f"{name} is done, score {_tell(study, one.asked, one.going.member)}")
    elif code == 130:
        say(f"{name} was stopped; it goes on when the sweep does")
    else:
        study.tell(one.asked, state=optuna.trial.TrialState.FAIL)
        say(f"{name} failed with exit code {code}; its output is in {folder / name}.log")
        return True
    return False


def _tell(study: Any, asked: Any, member: Member) -> str:
    """Tell Optuna the score of a run that is done; return it as text."""
    import optuna

    found = scores(member)
    if found:
        study.tell(asked, found[-1])
        return f"{found[-1]:.3f}"
    study.tell(asked, state=optuna.trial.TrialState.FAIL)
    return "none"
