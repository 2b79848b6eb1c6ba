"""YAML files that people write: their content, and the line of every key."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from actors.benchmarks.catalogue import nearest
from cluster.errors import ConfigError

Keys = tuple[str, ...]  # from the outermost mapping inwards
Places = dict[Keys, str]


class Loader(yaml.SafeLoader):
    """Takes 1e-5 for a number, as YAML 1.2 does; PyYAML's version 1.1 takes it for text."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("+-0123456789")
)


def read(file: Path) -> tuple[dict[str, Any], dict[Keys, int]]:
    """Return the mapping in a file and the lines of its keys, those of inner mappings too. All keys are text.

    Raises ConfigError, which names file and line, if it cannot be read, is no mapping or has a key twice.
    """
    try:
        loader = Loader(file.read_text())
        try:
            node = loader.get_single_node()
            lines: dict[Keys, int] = {}
            if not isinstance(node, yaml.MappingNode):
                raise ConfigError(f"{file} maps no names to values, such as `steps: 5000`")
            return _mapping(file, loader, node, (), lines), lines
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not text in UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        said = str(getattr(error, "problem", error)).splitlines()[0]
        raise ConfigError(f"{file}{line} is not YAML: {said}") from error
    except RecursionError as error:
        raise ConfigError(f"{file} is nested too deeply, or contains itself") from error


def read_with(
    what: str, file: Path, known: Collection[str], needed: Mapping[str, str]
) -> tuple[dict[str, Any], Places]:
    """Return the mapping in a file of such a kind, and for each of its keys the beginning of a sentence about it.

    Raises ConfigError also for a key that is not `known`, and without one that is `needed`, with its example.
    """
    found, lines = read(file)
    where = {keys: f"{what} {file} line {line}" for keys, line in lines.items()}
    for key in found:
        if key not in known:
            raise ConfigError(f"{where[key,]}: there is no key {key!r}; {nearest(key, known)}")
    for key, example in needed.items():
        if key not in found:
            raise ConfigError(f"{what} {file} has no {key}: add it, such as {key}: {example}")
    return found, where


def _mapping(
    file: Path, loader: yaml.SafeLoader, node: yaml.MappingNode, outer: Keys, lines: dict[Keys, int]
) -> dict[str, Any]:
    own = {id(key) for key, _ in node.value}
    loader.flatten_mapping(node)  # puts what `<<` brings before the mapping's own keys, which win
    found: dict[str, Any] = {}
    named = set[str]()
    for key_node, value in node.value:
        key, line = str(_made(file, loader, key_node)), key_node.start_mark.line + 1
        place = (*outer, key)
        if key in named:
            raise ConfigError(f"{file} line {line}: {key} is in line {lines[place]} already")
        if id(key_node) in own:
            named.add(key)
        lines[place] = line
        is_mapping = isinstance(value, yaml.MappingNode)
        found[key] = _mapping(file, loader, value, place, lines) if is_mapping else _made(file, loader, value)
    return found


def _made(file: Path, loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, KeyError, AttributeError, TypeError) as error:  # a date without such a day, for instance
        raise ConfigError(f"{file} line {node.start_mark.line + 1}: a value cannot be read ({error})") from error
