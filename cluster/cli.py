"""The `brc` command."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from actors.catalogue import nearest
from cluster import commands
from cluster.config import Config
from cluster.errors import ConfigError
from cluster.presets import PRESETS

USAGE = """usage: brc COMMAND ...

  brc train PRESET [--learner.width 512 ...]   train; `brc train PRESET --help` lists every option
  brc eval RUN [--episodes 10]                 score a run's newest checkpoint
  brc status [RUN]                             all runs, or one
  brc stop RUN                                 stop a live run cleanly
  brc suites [SUITE]                           suites, or the tasks of one
  brc presets                                  presets
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a part of the run failed, 2 bad input, 130 stopped by a signal."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return run(given)
    except ConfigError as error:
        print(f"brc: {error}", file=sys.stderr)
        return 2


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    name, *rest = arguments
    known: dict[str, Callable[[list[str]], int]] = {
        "train": train,
        "eval": lambda rest: parsed(commands.evaluate, rest, "brc eval"),
        "status": lambda rest: parsed(commands.status, rest, "brc status"),
        "stop": lambda rest: parsed(commands.stop, rest, "brc stop"),
        "suites": lambda rest: parsed(commands.suites, rest, "brc suites"),
        "presets": lambda rest: parsed(commands.presets, rest, "brc presets"),
    }
    if name not in known:
        raise ConfigError(f"unknown command {name!r}; {nearest(name, known)}")
    return known[name](rest)


def train(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        raise ConfigError(f"brc train needs a preset first: {', '.join(PRESETS)}")
    preset, *options = arguments
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; {nearest(preset, PRESETS)}")
    config = parse(Config, options, f"brc train {preset}", default=PRESETS[preset]())
    from cluster.train import train as run_training

    return run_training(config, preset)


def parsed(command: Callable[..., int], arguments: list[str], program: str) -> int:
    """Call a command with what the command line says; its annotations are its interface."""
    result: int = parse(command, arguments, program)
    return result


def parse(what: Any, arguments: list[str], program: str, default: Any = None) -> Any:
    """tyro.cli, its boxed complaint turned into one sentence."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            if default is None:
                return tyro.cli(what, args=arguments, prog=program)
            return tyro.cli(what, args=arguments, prog=program, default=default)
    except SystemExit as error:
        if error.code in (0, None):
            raise
        raise ConfigError(f"{sentence(complaint.getvalue())}; see `{program} --help`") from None


def sentence(complaint: str) -> str:
    """The first paragraph of tyro's box, and the first option it suggests."""
    paragraphs: list[list[str]] = [[]]
    for line in complaint.splitlines():
        text = line.strip(" │╭╮╰╯─-") if set(line) & set("╭╰") else line.strip(" │")
        if text and set(text) <= {"-", "─"}:
            paragraphs.append([])
        elif text:
            paragraphs[-1].append(text)
    if set(complaint) & set("╭"):  # the title is in the frame
        paragraphs.insert(1, [])
    title, body, *others = [" ".join(lines) for lines in paragraphs] + [""]
    hint = next((text for text in others if text.startswith("Perhaps you meant")), "")
    suggestion = f", did you mean {hint.split()[3]}?" if len(hint.split()) > 3 else ""
    return (body or title).rstrip(".").replace("Error parsing ", "") + suggestion
