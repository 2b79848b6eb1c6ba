"""`brc train`, `brc resume` and `brc add-task`: from the words of a command line to runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from cluster.cli.dry_run import show_plan
from cluster.cli.parsing import parse, said
from cluster.config import changes, files
from cluster.config.fields import flag, get
from cluster.config.presets import PRESETS
from cluster.config.schema import RUNS, Config
from cluster.errors import ConfigError
from cluster.preflight.origin import successor
from cluster.preflight.validation import check_bounds
from cluster.run.folder import existing_run, load_config, restore_folder, run_name
from cluster.run.registry import find_registry

BASE = "quickstart"  # of runs whose options come from a file: their command lines say all that differs from it
STARTS = ("train", "resume", "add-task")  # commands that begin runs or go on with them


@dataclass(frozen=True)
class Options(Config):
    """What `brc train` takes: the options of a run, and those of the command itself."""

    config: str = ""
    """YAML file with options, such as the config.yaml of a run (docs/configuration.md). Options given here win."""
    seeds: tuple[int, ...] = ()
    """Seeds of several runs, NAME-SEED each, with one page; again with the same --name, it goes on with them."""
    at_once: int = 0
    """Runs at a time, with --seeds; 0 is as many as this machine has room for."""
    print_config: bool = False
    """Print the whole configuration as YAML, which --config reads, and train nothing."""
    dry_run: bool = False
    """Print what the run would be, its sizes and its memory, and train nothing."""


def train(arguments: Sequence[str]) -> int:
    """Train what a preset, a file and options say."""
    preset, options = asked(arguments)
    config = configuration(options)
    check_bounds(config)
    check_own(options)
    if options.print_config:
        print(files.dump(preset, config), end="")
        return 0
    if options.dry_run:
        return show_plan(config, preset, options.seeds)
    if options.seeds:
        return train_several(config, preset, options.seeds, options.at_once)
    return run(config, preset)


def check_own(options: Options) -> None:
    """Check that the options of the command itself go together. Raises ConfigError."""
    seeds = " ".join(map(str, options.seeds))
    if options.at_once and not options.seeds:
        raise ConfigError(f"--at-once {options.at_once} is for several runs: name their --seeds, or leave it out")
    if options.at_once < 0:
        raise ConfigError(f"--at-once {options.at_once}: it must be 0 or more")
    if len(set(options.seeds)) < len(options.seeds):
        raise ConfigError(f"--seeds {seeds}: each seed once")
    if options.seeds and options.resume:
        raise ConfigError(f"--seeds {seeds} go on with what is not done by themselves: leave out --resume")


def asked(arguments: Sequence[str]) -> tuple[str, Options]:
    """Return the preset and the options of the words behind `brc train`. Raises ConfigError."""
    words, preset = list(arguments), ""
    if words and not words[0].startswith("-"):
        preset = words.pop(0)
    file = said(words, "--config")
    if not file and any(word.partition("=")[0] == "--config" for word in words):
        raise ConfigError("--config needs a file, such as mine.yaml")
    if file:
        if preset and preset not in files.presets():
            files.preset(preset)  # refuses it
        preset, base = files.load(Path(file), preset)
    elif preset:
        base = files.preset(preset)
    elif not {"-h", "--help"}.isdisjoint(words):
        base = Config()
    else:
        raise ConfigError(f"brc train needs a preset first, or --config FILE: {', '.join(files.presets())}")
    default = Options(**{field.name: getattr(base, field.name) for field in fields(Config)})
    return preset, parse(Options, words, f"brc train {preset or 'PRESET'}", default=default)


def configuration(options: Options) -> Config:
    """Return the options without those of the command."""
    return Config(**{field.name: getattr(options, field.name) for field in fields(Config)})


def run(config: Config, preset: str) -> int:
    from cluster.training import train as run_training

    return run_training(config, preset)


def train_several(config: Config, preset: str, seeds: tuple[int, ...], at_once: int) -> int:
    """Train a run for each seed, those that are not done, then write one page of all."""
    from cluster.cli.study import conduct
    from cluster.study.study import Member, Study

    name = run_name(config, preset)
    base = preset if preset in files.presets() else BASE
    members = [Member(preset, base, replace(config, name=f"{name}-{seed}", seed=seed)) for seed in seeds]
    return conduct(Study(name, f"seeds of {preset}", preset, seeds, {}, {preset: {}}), members, at_once)


def resume(arguments: Sequence[str]) -> int:
    """Go on with a run from its newest checkpoint, with the options that it had and changes of them."""
    if not arguments or arguments[0].startswith("-"):
        raise ConfigError("brc resume needs a run first, such as brc resume RUN --steps 200000; see `brc status`")
    name, *options = arguments
    folder = said(options, "--runs-folder") or RUNS
    runs = Path(folder).absolute()
    registry = find_registry(runs)
    if name in registry.names():
        restore_folder(runs / name, registry)
    preset, config = load_config(existing_run(runs, name))
    if owner := registry.owner(name):
        raise ConfigError(f"run {name} is live ({owner}): stop it first with `brc stop {name}`")
    begun = replace(config, name=name, resume=True, runs_folder=folder)
    found = parse(Config, options, "brc resume RUN", default=begun)
    for path in ("name", "resume", "runs_folder"):
        if get(found, path) != get(begun, path):
            raise ConfigError(
                f"{flag(path)} {get(found, path)}: brc resume goes on with run {name} of {runs}; `brc copy` makes "
                "another that goes on by itself"
            )
    return run(found, preset)


def add_task(arguments: Sequence[str]) -> int:
    """Train a new run with the configuration of an old run, except for its tasks, its name and the given options."""
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
    options = [word for word in arguments[len(words) :] if word != "--keep"]
    if len(words) < 2:
        raise ConfigError("brc add-task needs a run and tasks, such as brc add-task RUN dmc/walker-walk")
    name, *tasks = words
    path = existing_run(Path(said(options, "--runs-folder") or RUNS).absolute(), name)
    preset, begun = successor(path, tuple(tasks), keep="--keep" in arguments)
    return run(parse(Config, options, "brc add-task RUN TASK", default=begun), preset)


def shipped_words(arguments: Sequence[str]) -> list[str]:
    """Return the words behind `brc train` with what files of this machine say in them, for another machine. The preset
    is then one that the project ships."""
    if arguments[:1] and arguments[0] in PRESETS and not said(arguments, "--config"):
        return list(arguments)
    if not {"-h", "--help"}.isdisjoint(arguments):
        return list(arguments)
    preset, options = asked(arguments)
    base = preset if preset in PRESETS else BASE
    config = configuration(options)
    if config.origin:
        raise ConfigError(f"--origin {config.origin} is a folder of this machine: use `brc remote add-task` there")
    named = replace(config, name=run_name(config, preset))
    found = [base, *changes.words(named, PRESETS[base]())]
    found += ["--seeds", *map(str, options.seeds)] if options.seeds else []
    found += ["--at-once", str(options.at_once)] if options.at_once else []
    found += [
        flag for flag, wanted in (("--print-config", options.print_config), ("--dry-run", options.dry_run)) if wanted
    ]
    return found
