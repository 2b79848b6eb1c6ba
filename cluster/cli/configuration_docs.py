"""Prints docs/configuration.md: every option, and the docstring below its field."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from cluster.config import files
from cluster.config.fields import BOUNDS, FIXED, FIXED_IN_LOCK_STEP, flag, get
from cluster.config.presets import PRESETS
from cluster.config.schema import Config
from cluster.study import sweep

HEAD = """# Configuration

Every option of `brc train PRESET`, and what it means. This page is written by `make docs` from
`cluster/config/schema.py` and `learner/config.py`; edit the docstrings there, not this page.

A default is what holds where the preset says nothing else; [the last table](#presets) lists what presets say. A value
outside its range is refused before anything starts, with the nearest value that is valid. `brc train PRESET --help`
shows the same options with the defaults of that preset. An environment step of a task counts the steps of all its
copies together.

A resumed run cannot change an option that is marked `fixed`, and one in serial execution none that is marked `serial`
either.
"""


class Option(NamedTuple):
    """One field of the configuration. `path` is learner.batch_size for --learner.batch-size."""

    path: str
    kind: str
    default: Any
    meaning: str


class Section(NamedTuple):
    """One dataclass: its docstring and its options."""

    title: str
    summary: str
    options: list[Option]


def sections() -> list[Section]:
    """Return a section for every dataclass of the configuration, the run's own options first."""
    defaults = Config()
    nested = [field.name for field in fields(Config) if is_dataclass(getattr(defaults, field.name))]
    return [section("Run", defaults, ""), *(section(n.capitalize(), getattr(defaults, n), f"{n}.") for n in nested)]


def section(title: str, defaults: Any, prefix: str) -> Section:
    """Return the docstrings of a dataclass and its fields. Fields that are dataclasses have sections of their own."""
    node = ast.parse(inspect.getsource(type(defaults))).body[0]
    assert isinstance(node, ast.ClassDef)
    options = [
        Option(prefix + name, kind, getattr(defaults, name), meaning)
        for name, kind, meaning in documented_fields(node)
        if not is_dataclass(getattr(defaults, name))
    ]
    return Section(title, ast.get_docstring(node) or "", options)


def documented_fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Yield (name, type in words, the docstring below it) of every field."""
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        meaning = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            meaning = inspect.cleandoc(str(following.value.value)).replace("\n", " ")
        yield statement.target.id, kind_in_words(statement.annotation), meaning


def kind_in_words(annotation: ast.expr) -> str:
    """Return a type in words: 'whole number' for int, '`l2` or `l1`' for Literal["l2", "l1"], and so on."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        choices = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        names = [f"`{ast.literal_eval(choice)}`" for choice in choices]
        return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    written = ast.unparse(annotation)
    words = {"int": "whole number", "float": "number", "bool": "flag", "str": "text"}
    return words.get(written, "names, separated by spaces" if written.startswith("tuple[str") else written)


def shown(value: Any) -> str:
    """Return a value as it is typed on the command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return f"`{' '.join(value)}`" if value else "none"
    if isinstance(value, float):
        return f"`{value:g}`" if float(f"{value:g}") == value else f"`{value!r}`"
    return f"`{value}`" if value != "" else "empty"


def bound(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def option_row(option: Option) -> str:
    name = f"`{flag(option.path)}`"
    if option.kind == "flag":
        group, dot, own = flag(option.path).removeprefix("--").rpartition(".")
        name += f", `--{group}{dot}no-{own}`"
    limits = BOUNDS.get(option.path)
    span = "" if limits is None else f"{bound(limits[0])} to {bound(limits[1])}"
    resume = "fixed" if option.path in FIXED else "serial" if option.path in FIXED_IN_LOCK_STEP else ""
    return f"| {name} | {option.kind} | {shown(option.default)} | {span} | {resume} | {option.meaning} |"


def preset_rows(options: list[Option]) -> Iterator[str]:
    """Yield a row for every preset and every option whose value in it is not the default."""
    for name, make in PRESETS.items():
        for option in options:
            value = get(make(), option.path)
            if value != option.default:
                yield f"| `{name}` | `{flag(option.path)}` | {shown(value)} |"


def markdown() -> str:
    """Return the whole page."""
    found = sections()
    lines = [HEAD]
    for part in found:
        lines += [f"## {part.title}", "", part.summary, ""]
        lines += ["| option | type | default | range | resume | meaning |", "|---|---|---|---|---|---|"]
        lines += [option_row(option) for option in part.options] + [""]
    for title, module in (("Files", files), ("Sweeps", sweep)):
        lines += [
            f"## {title}",
            "",
            *(module.__doc__ or "").replace(" (docs/configuration.md)", "").strip().splitlines(),
            "",
        ]
    lines += ["## Presets", "", "What each preset sets. Options on the command line override it.", ""]
    lines += [f"- `{name}`: {make.__doc__}" for name, make in PRESETS.items()]
    lines += ["", "| preset | option | value |", "|---|---|---|"]
    lines += preset_rows([option for part in found for option in part.options])
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
