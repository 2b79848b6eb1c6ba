"""Configurations in YAML files, and presets of one's own.

    about: dogs on two machines
    preset: dmc-dogs
    steps: 500_000
    learner: {width: 2048, batch-size: 512}
    replay.shards: 2

Options stand in sections or with dots, with - or _; all others are those of the preset. The config.yaml of a run, and
what `brc train PRESET --print-config` prints, are such files. A file `presets/NAME.yaml` in the current folder is a
preset of the name NAME.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from actors.benchmarks.catalogue import nearest
from cluster.config.changes import adapter, changed, path_of, paths
from cluster.config.fields import BOUNDS, check_bound, get
from cluster.config.presets import PRESETS
from cluster.config.schema import Config
from cluster.config.yaml_lines import Keys, Places, read
from cluster.errors import ConfigError
from replay.json_text import json_text

FOLDER = Path("presets")  # of one's own, below the current folder
ABOUT, PRESET = "about", "preset"


def presets() -> dict[str, Callable[[], Config]]:
    """Return all presets by name, those of one's own last. Each raises ConfigError if its file is wrong."""
    own = {file.stem: file for file in sorted(FOLDER.glob("*.yaml"))}
    return PRESETS | {name: partial(_preset_of, file) for name, file in own.items() if name not in PRESETS}


def preset(name: str) -> Config:
    """Return the configuration of a preset. Raises ConfigError, with the nearest names, if there is none, or if a file
    of one's own has the name of one that is there already."""
    known, own = presets(), FOLDER / f"{name}.yaml"
    if name not in known:
        raise ConfigError(f"unknown preset {name!r}; {nearest(name, known)}")
    if name in PRESETS and own.is_file():
        raise ConfigError(f"{own} has the name of a preset that is there already: give it another")
    return known[name]()


def about(name: str) -> str:
    """Return what a preset is, in a sentence."""
    made = presets()[name]
    if isinstance(made, partial):
        found = _read(made.args[0])[1]
        return str(found.get(ABOUT, (f"of {made.args[0]}", ""))[0])
    return made.__doc__ or ""


def _preset_of(file: Path) -> Config:
    return load(file)[1]


def load(file: Path, begin: str = "", within: tuple[Path, ...] = ()) -> tuple[str, Config]:
    """Return (preset, configuration) of a file, over the preset `begin` if the file names none.

    Name, folder of runs and `resume` are left out of the config.yaml in a run's own folder: what is made of it is
    another run. Raises ConfigError, which names file and line, for what is wrong in it.
    """
    given, words = _read(file)
    named, at = words.get(PRESET, (begin, str(file)))
    if not isinstance(named, str):
        raise ConfigError(f"{at}: there is no preset {named!r}; {nearest(str(named), presets())}")
    recorded = file.name == "config.yaml" and given.get("name", ("", ""))[0] == file.absolute().parent.name
    if begin and PRESET in words and named != begin and not recorded:
        raise ConfigError(f"{at}: its preset is {named}, not {begin}: leave one of them out")
    config = Config()
    if file in within:
        raise ConfigError(f"{at}: the preset begins with itself")
    if named and not recorded:
        known = presets()
        if named not in known:
            raise ConfigError(f"{at}: there is no preset {named!r}; {nearest(str(named), known)}")
        made = known[named]
        config = load(made.args[0], within=(*within, file))[1] if isinstance(made, partial) else made()
    for path, (value, where) in given.items():
        config = changed(config, ({path: value},), where)
        if path in BOUNDS:
            check_bound(path, get(config, path), f"{where}: {path}")
    if recorded:
        config = replace(config, name="", resume=False, runs_folder=Config().runs_folder)
    return str(begin or named or file.stem), config


def dump(preset: str, config: Config) -> str:
    """Return a configuration as YAML, which `load` reads."""
    return yaml.safe_dump(json.loads(json_text({PRESET: preset, **asdict(config)})), sort_keys=False)


def recorded(text: str) -> tuple[str, Config]:
    """Return (preset, configuration) of a text that `dump` made. Raises ValueError, KeyError, AttributeError, TypeError
    or yaml.YAMLError if it is damaged."""
    saved = yaml.safe_load(text)
    preset = saved.pop(PRESET)
    return preset, adapter().validate_python(saved)


Given = dict[str, tuple[Any, str]]  # a value and the place that it is in, by path


def _read(file: Path) -> tuple[Given, Given]:
    """Return the options of a file, and its other words. Raises ConfigError."""
    document, lines = read(file)
    found: Given = {}
    words: Given = {}
    for key, value, at in entries(document, {keys: f"{file} line {line}" for keys, line in lines.items()}):
        where = words if key in (ABOUT, PRESET) else found
        try:
            path = key if where is words else path_of(key)
        except KeyError:
            raise ConfigError(f"{at}: there is no option {key!r}; {nearest(key, [*paths(), ABOUT, PRESET])}") from None
        if path in where:
            raise ConfigError(f"{at}: {key} is in line {where[path][1].rpartition(' line ')[2]} already")
        where[path] = value, at
    return found, words


def entries(
    document: Mapping[str, Any], where: Places, within: Keys = (), sections: Keys = ()
) -> Iterator[tuple[str, Any, str]]:
    """Yield the path, the value and the place of every option in a mapping, in sections or with dots. `within` are the
    keys of the file that lead to the mapping. Raises ConfigError for a section that has no options."""
    for key, value in document.items():
        path, at = ".".join((*sections, key)), where[*within, *sections, key]
        if not any(known.startswith(path.replace("_", "-") + ".") for known in paths()):
            yield path, value, at
        elif isinstance(value, dict):
            yield from entries(value, where, within, (*sections, key))
        else:
            raise ConfigError(f"{at}: {path} is a section: give it options, such as {_example(path)}")


def _example(section: str) -> str:
    first = next(path for path in paths() if path.startswith(section.replace("_", "-") + "."))
    return f"{{{first.removeprefix(section + '.')}: ...}}"
