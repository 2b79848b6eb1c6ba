"""A sweep: options whose best values are searched for, from a YAML file (docs/configuration.md).

    about: learning rate and width
    preset: quickstart
    options: {steps: 20_000, evaluation.interval: 5_000}
    trials: 20
    sampler: tpe
    prune: true
    space:
      learner.learning-rate: {low: 1e-5, high: 1e-2, log: true}
      learner.width: [32, 64, 128]
      learner.n-step: {low: 1, high: 5}

A trial is a run with values of the space. What is searched for is the highest mean score over tasks at its last
evaluation, or the highest mean return if its tasks have no score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.benchmarks.catalogue import nearest
from cluster.config.changes import changed, path_of, paths
from cluster.config.fields import BOUNDS, check_bound, get
from cluster.config.files import entries, preset, presets
from cluster.config.schema import Config
from cluster.config.yaml_lines import Places, read_with
from cluster.errors import ConfigError
from cluster.study.study import OWN, UNFILMED, Member

KEYS = ("about", "preset", "options", "trials", "sampler", "prune", "seed", "space")
SAMPLERS = ("tpe", "random", "grid", "gp", "qmc")
OF_RANGE = {"low", "high", "log", "step"}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole numbers if these are. With `log` they are drawn evenly by
    their logarithms. `step` divides the range."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


Space = dict[str, Range | tuple[Any, ...]]  # a range or a choice, by path


@dataclass(frozen=True)
class Sweep:
    """A sweep as it is in its file.

    Attributes:
        sampler: one of SAMPLERS; how Optuna draws the next values.
        prune: whether a trial is stopped early, by ASHA (arXiv 1810.05934), when others had better scores by then.
        seed: seed of the sampler.
    """

    name: str
    about: str
    preset: str
    options: dict[str, Any]
    space: Space
    trials: int
    sampler: str = "tpe"
    prune: bool = True
    seed: int = 0

    def run_name(self, number: int) -> str:
        """Return the name of a trial's run."""
        return f"{self.name}-{number:03d}"

    def member(self, number: int, values: Mapping[str, Any], runs_folder: str) -> Member:
        """Return the run of a trial. Raises ConfigError for values that options cannot have."""
        own = {"name": self.run_name(number), "runs_folder": runs_folder}
        where = f"sweep {self.name}, trial {number}"
        return Member(
            str(number), self.preset, changed(preset(self.preset), (UNFILMED, self.options, values, own), where)
        )


def load(file: Path) -> Sweep:
    """Load the sweep of a file. Raises ConfigError, naming what is wrong and its line."""
    needed = {"preset": "quickstart", "space": "{learner.width: [32, 64]}"}
    found, where = read_with("sweep", file, KEYS, needed)
    named, sampler, given = found["preset"], found.get("sampler", "tpe"), found["space"]
    if not isinstance(named, str) or named not in presets():
        raise ConfigError(f"{where['preset',]}: there is no preset {named!r}; {nearest(str(named), presets())}")
    if sampler not in SAMPLERS:
        raise ConfigError(f"{where['sampler',]}: sampler {sampler!r} is not one of {', '.join(SAMPLERS)}")
    if not isinstance(given, dict) or not given:
        raise ConfigError(f"{where['space',]}: `space` is to map options to ranges and choices")
    space = {}
    for key, value in given.items():
        path, made = _part(key, value, where["space", key])
        if path in space:
            raise ConfigError(f"{where['space', key]}: {key} is in the space twice")
        space[path] = made
    if sampler == "grid" and (ranges := [path for path, made in space.items() if isinstance(made, Range)]):
        raise ConfigError(f"{where['sampler',]}: a grid needs choices, and {ranges[0]} is a range: list its values")
    size = math.prod(len(choice) for choice in space.values() if not isinstance(choice, Range))
    trials = found.get("trials", size if sampler == "grid" else 20)
    for key, value in (("trials", trials), ("seed", found.get("seed", 0))):
        if type(value) is not int or not (key == "trials") <= value < 2**31:
            raise ConfigError(f"{where[key,]}: {key} {value!r} is to be a whole number, such as {key}: 20")
    if type(found.get("prune", True)) is not bool:
        raise ConfigError(f"{where['prune',]}: prune {found['prune']!r} is to be true or false")
    options = found.get("options") or {}
    if not isinstance(options, dict):
        raise ConfigError(f"{where['options',]}: {options!r} is to map options to values, such as {{steps: 900}}")
    options = _checked(options, where, space, named)
    return Sweep(
        file.stem,
        str(found.get("about", "")),
        named,
        options,
        space,
        min(trials, size) if sampler == "grid" else trials,
        sampler,
        found.get("prune", True),
        found.get("seed", 0),
    )


def _part(key: str, value: Any, where: str) -> tuple[str, Range | tuple[Any, ...]]:
    """Return the path of an option, and its range or its choices."""
    try:
        path = path_of(key)
    except KeyError:
        raise ConfigError(f"{where}: there is no option {key!r}; {nearest(key, paths())}") from None
    if path in OWN and path != "seed":
        raise ConfigError(f"{where}: the sweep sets {key} itself: leave it out")
    if isinstance(value, list) and len(value) > 1 and all(type(one) in (int, float, str, bool) for one in value):
        return path, tuple(value)
    if isinstance(value, dict):
        example = "such as {low: 1e-5, high: 1e-2, log: true}"
        if unknown := sorted(value.keys() - OF_RANGE):
            raise ConfigError(f"{where}: a range has no {unknown[0]!r}: give it low and high, {example}")
        low: Any = value.get("low")
        high: Any = value.get("high")
        log, step = value.get("log", False), value.get("step")
        numbers = all(type(one) in (int, float) for one in (low, high, *([step] if step is not None else [])))
        if (
            not numbers
            or type(log) is not bool
            or not -math.inf < low < high < math.inf
            or (log and (low <= 0 or step is not None))
            or (step is not None and not 0 < step <= high - low)
        ):
            raise ConfigError(
                f"{where}: {key} {value} is no range: low is to be less than high, above 0 with log, and a step within "
                f"them, without log, {example}"
            )
        if type(get(Config(), path)) is int and any(type(one) is not int for one in (low, high, step or 1)):
            raise ConfigError(f"{where}: {key} is a whole number: give it whole low, high and step")
        return path, Range(low, high, log, step)
    raise ConfigError(f"{where}: {key} {value!r} is to be a range, {{low: 1, high: 9}}, or two choices or more, [1, 9]")


def _checked(given: dict[str, Any], where: Places, space: Space, named: str) -> dict[str, Any]:
    """Return the options by their paths. Raises ConfigError for values that options cannot have, there, at the ends of
    ranges or in choices."""
    options = {}
    for key, value, at in entries(given, where, ("options",)):
        changed(preset(named), ({key: value},), at)
        path = path_of(key)
        if path in OWN and path != "seed":
            raise ConfigError(f"{at}: the sweep sets {key} itself: leave it out")
        if path in space or path in options:
            raise ConfigError(f"{at}: {key} is there twice, or in the space too")
        options[path] = value
    of_space = {path_of(keys[1]): at for keys, at in where.items() if len(keys) == 2 and keys[0] == "space"}
    for path, made in space.items():
        for value in (made.low, made.high) if isinstance(made, Range) else made:
            changed(preset(named), ({path: value},), of_space[path])
            if path in BOUNDS:
                check_bound(path, value, f"{of_space[path]}: {path}")
    return options
