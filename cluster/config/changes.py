"""Changes of a configuration by the paths of options, and the words of the command line that make a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from actors.benchmarks.catalogue import nearest
from cluster.config.fields import flag, get, options
from cluster.config.schema import Config
from cluster.errors import ConfigError


@cache
def adapter() -> TypeAdapter[Config]:
    return TypeAdapter(Config)


def path_of(key: str) -> str:
    """Return the path of an option, whichever of learner.batch_size and learner.batch-size it is written as. Raises
    KeyError."""
    return paths()[key.replace("_", "-")]


@cache
def paths() -> dict[str, str]:
    """Return the paths of all options by their flags without --."""
    return {flag(path).removeprefix("--"): path for path, _ in options(Config())}


def changed(config: Config, several: Sequence[Mapping[str, Any]], where: str) -> Config:
    """Return a configuration with these options, by their paths, checked as those of a command line. Later ones win.

    Raises ConfigError, which begins with `where`, for an option that is not known or has a bad value.
    """
    document = asdict(config)
    for key, value in ((key, value) for values in several for key, value in values.items()):
        try:
            path = path_of(str(key))
        except KeyError:
            raise ConfigError(f"{where}: there is no option {key!r}; {nearest(str(key), paths())}") from None
        if isinstance(value, bool) and not isinstance(get(config, path), bool):
            raise ConfigError(f"{where}: {path} {value}: it takes no yes or no")
        *sections, last = path.split(".")
        place = document
        for section in sections:
            place = place[section]
        place[last] = value
    try:
        return adapter().validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"] if not str(part).startswith("tuple"))
        raise ConfigError(f"{where}: {option} {first['input']!r}: {first['msg']}") from error


def words(config: Config, base: Config) -> list[str]:
    """Return the options of a command line that make `config` of `base`."""
    found: list[str] = []
    for path, _ in options(base):
        value = get(config, path)
        if value == get(base, path):
            continue
        if isinstance(value, bool):
            group, dot, own = flag(path).removeprefix("--").rpartition(".")
            found.append(flag(path) if value else f"--{group}{dot}no-{own}")
        elif isinstance(value, dict):
            found += [flag(path), *(str(word) for pair in value.items() for word in pair)]
        elif isinstance(value, tuple):
            found += [flag(path), *map(str, value)]
        else:
            found += [flag(path), str(value)]
    return found


def differing(one: Config, other: Config) -> list[str]:
    """Return the paths of the options in which two configurations differ."""
    return [path for path, _ in options(one) if get(one, path) != get(other, path)]
