"""A study: a preset, options, variants of it, and seeds, from a YAML file (docs/comparisons.md).

    about: cross-entropy against squared error
    preset: quickstart
    seeds: [0, 1, 2]
    options: {steps: 20000, learner.width: 64}
    variants:
      categorical: {}
      squared error: {learner.loss: mse}
      simba: {like: simba, learner.width: 64}
      one agent a task: {alone: true}
      transfer: {from: categorical, tasks: [dmc/cartpole-swingup]}

`like` takes all options of the learner that another preset sets. `alone` trains an agent for each task. `from` begins
with the agent of another variant and the same seed, when that is trained, as `brc add-task` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actors.benchmarks.catalogue import UnknownNameError, nearest, resolve
from cluster.config import changes
from cluster.config.changes import changed
from cluster.config.fields import get, options
from cluster.config.files import entries, preset, presets
from cluster.config.schema import Config
from cluster.config.yaml_lines import Keys, Places, read_with
from cluster.errors import ConfigError

SHIPPED = Path(__file__).parent / "shipped"
KEYS = {"about", "preset", "seeds", "options", "variants", "score"}
LIKE, ALONE, FROM = "like", "alone", "from"
UNFILMED = {"evaluation.films": 0}  # unless a file asks for films: there are many runs
OWN = ("name", "seed", "resume", "runs_folder")  # options that a study sets itself


@dataclass(frozen=True)
class Member:
    """A run of a study. `after` is the run whose agent it begins with, if there is one."""

    variant: str
    preset: str
    config: Config
    after: str = ""

    @property
    def name(self) -> str:
        return self.config.name


@dataclass(frozen=True)
class Study:
    """A study as it is in its file.

    Attributes:
        variants: options of each variant, by their paths.
        score: score whose price in steps, updates, hours and operations the page compares; None for half of the best.
    """

    name: str
    about: str
    preset: str
    seeds: tuple[int, ...]
    options: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    score: float | None = None

    def members(self, runs_folder: str) -> list[Member]:
        """Return its runs, seed by seed. Raises ConfigError for an option that is not known or has a bad value, and for
        variants whose runs would have one name."""
        found = [
            member
            for seed in self.seeds
            for variant in self.variants
            for member in self._members(variant, seed, runs_folder)
        ]
        named: dict[str, Member] = {}
        for member in found:
            other = named.setdefault(member.name, member)
            if other is not member:
                raise ConfigError(
                    f"study {self.name}: variants {other.variant!r} and {member.variant!r} both have the run "
                    f"{member.name}: give one another name"
                )
        return found

    def _members(self, variant: str, seed: int, runs_folder: str) -> list[Member]:
        where = f"study {self.name}, variant {variant}"
        given = dict(self.variants[variant])
        like, alone, origin = given.pop(LIKE, None), given.pop(ALONE, False), given.pop(FROM, None)
        if like is not None and like not in presets():
            raise ConfigError(f"{where}: there is no preset {like!r}; {nearest(str(like), presets())}")
        if origin is not None and (origin not in self.variants or self.variants[origin].get(ALONE)):
            raise ConfigError(f"{where}: {origin!r} is no variant with one agent to begin with")
        if origin is not None and FROM in self.variants[origin]:
            raise ConfigError(f"{where}: {origin!r} itself begins with another: name one that begins from scratch")
        borrowed = {} if like is None else of_learner(preset(like))
        after = "" if origin is None else self.run_name(origin, seed)
        own = {"seed": seed, "runs_folder": runs_folder}
        own |= {"origin": f"{runs_folder}/{after}", "origin_embedding": "mean"} if after else {}
        name = self.run_name(variant, seed)
        config = changed(preset(self.preset), (UNFILMED, self.options, borrowed, given, own | {"name": name}), where)
        if not alone:
            return [Member(variant, self.preset, config, after)]
        try:
            tasks = [task.name for task in resolve(config.tasks)]
        except UnknownNameError as error:
            raise ConfigError(f"{where}: {error}") from error
        named = {task: self.run_name(f"{variant} {task}", seed) for task in tasks}
        return [
            Member(variant, self.preset, replace(config, tasks=(task,), name=name), after)
            for task, name in named.items()
        ]

    def run_name(self, variant: str, seed: int) -> str:
        """Return the name of a variant's run."""
        return f"{self.name}-{re.sub(r'[^A-Za-z0-9]+', '-', variant).strip('-')}-{seed}"


def of_learner(config: Config) -> dict[str, Any]:
    """Return the options of the learner that a preset sets, by their paths."""
    default = Config()
    return {
        path: get(config, path)
        for path, _ in options(config)
        if path.startswith("learner.") and get(config, path) != get(default, path)
    }


def words(member: Member) -> list[str]:
    """Return the words of the command line, behind `brc train`, that begin this run."""
    return [member.preset, *changes.words(member.config, preset(member.preset))]


def shipped() -> dict[str, Path]:
    """Return the files of the studies that this project ships, by name."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}


def find(named: str) -> Study:
    """Return the shipped study of this name, or that of a file. Raises ConfigError."""
    known = shipped()
    if named in known:
        return load(known[named])
    if Path(named).suffix in (".yaml", ".yml"):
        return load(Path(named))
    raise ConfigError(f"there is no study {named!r}; {nearest(named, known)}, or name a file such as mine.yaml")


def load(file: Path) -> Study:
    """Load the study of a file. Raises ConfigError, naming what is wrong and its line."""
    needed = {"preset": "quickstart", "seeds": "[0, 1, 2]", "variants": "{brc: {}}"}
    found, where = read_with("study", file, KEYS, needed)
    named, variants, seeds, score = found["preset"], found["variants"], found["seeds"], found.get("score")
    if not isinstance(named, str) or named not in presets():
        raise ConfigError(f"{where['preset',]}: there is no preset {named!r}; {nearest(str(named), presets())}")
    if not isinstance(variants, dict) or not variants:
        raise ConfigError(f"{where['variants',]}: `variants` is to map names to options, such as {{brc: {{}}}}")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{where['seeds',]}: `seeds` is to be a list of whole numbers, such as [0, 1, 2]")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{where['seeds',]}: `seeds` has a seed twice: {seeds}")
    if score is not None and not isinstance(score, (int, float)):
        raise ConfigError(f"{where['score',]}: score {score!r} is no number")
    of_all = _given(found.get("options"), ("options",), where)
    of_each = {name: _given(given, ("variants", name), where) for name, given in variants.items()}
    return Study(
        file.stem,
        str(found.get("about", "")),
        named,
        tuple(seeds),
        of_all,
        of_each,
        score,
    )


def _given(given: Any, within: Keys, where: Places) -> dict[str, Any]:
    """Return options by their paths, and what else a variant says. Raises ConfigError."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ConfigError(f"{where[within]}, {within[-1]}: {given!r} is to map options to values, such as {{steps: 9}}")
    found = {}
    for key, value, at in entries(given, where, within):
        if key.replace("-", "_") in OWN:
            raise ConfigError(f"{at}: the study sets {key} itself: leave it out")
        if key in (LIKE, FROM) and not isinstance(value, str):
            raise ConfigError(f"{at}: {key} {value!r} is to be a name")
        if key == ALONE and not isinstance(value, bool):
            raise ConfigError(f"{at}: {key} {value!r} is to be true or false")
        found[key] = value
    return found


def narrowed(study: Study, seeds: tuple[int, ...]) -> Study:
    """Return the study with these seeds, if any are given."""
    return replace(study, seeds=seeds) if seeds else study
