"""The `brc` command."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from actors.backends.here import call_here
from actors.backends.returned import BadEnvironment
from actors.benchmarks.catalogue import nearest
from cluster.cli import commands
from cluster.cli.record import record
from cluster.cli.study import study
from cluster.config.presets import PRESETS
from cluster.config.schema import RUNS, Config
from cluster.errors import ConfigError
from cluster.preflight.origin import successor
from cluster.run.folder import existing_run
from cluster.run.registry import RegistryAway
from cluster.run.version import commit, version
from dashboards.sinks.view import shown
from learner.state.checkpoint import CheckpointError

USAGE = """usage: brc COMMAND ...

  brc train PRESET [--learner.width 512 ...]   train; `brc train PRESET --help` lists every option
  brc eval RUN [--episodes 10]                 score a run's newest checkpoint
  brc film RUN                                 film an episode of each task
  brc export RUN                               write its policy for other programs
  brc record RUN --to FOLDER                   write demonstrations of its tasks, from its policy or its replay
  brc report RUN [RUN ...]                     write a page of one run, or of several side by side
  brc status [RUN]                             all runs, or one
  brc scale RUN dmc=32                         have another number of a benchmark's actors in a live run
  brc add-task RUN TASK ... [--keep]           train on other tasks, beginning with what a run has learned
  brc stop RUN                                 stop a live run cleanly
  brc logs RUN                                 follow the console of a run on a cluster
  brc remote COMMAND ...                       the same on the cluster that is up, or here if none is
  brc study NAME|FILE                          train the variants of a study, and write a page that compares them
  brc study list, status, stop, report         shipped studies; or the state, the end or the page of one
  brc suites [SUITE]                           suites, or the tasks of one
  brc presets                                  presets
  brc --version                                this version, and its commit
"""
TRAINING = (["train"], ["add-task"], ["study"])  # commands that go on when nobody reads what they print


# tyro passes on Python's error messages: patterns of these, and plain words for each.
PLAIN_WORDS = (
    (r"^Error parsing (\S+): ", r"\1: "),
    (r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number"),
    (r"could not convert string to float: (.*)", r"\1 is not a number"),
    (r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)", r"\2: '\1' is not one of \3"),
    (r"Missing value for argument '(.*)'.*", r"\1: a value is missing"),
    (r"^Unrecognized options: ", "unknown option: "),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `brc` command and return its exit code.

    0: done. 1: a part of the run failed. 2: bad input. 130: stopped by a signal. 141: nobody reads what a command
    prints; commands that train go on in that case, here or on a cluster."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given[1:] if given[:1] == ["remote"] else given
    return shown(lambda: refusing(given), lasting=command[:1] in TRAINING)


def refusing(arguments: list[str]) -> int:
    """Run a command. Print bad input as a sentence, with exit code 2; a bad environment has exit code 1."""
    try:
        begin_here(arguments)
        return run(arguments)
    except (ConfigError, CheckpointError, RegistryAway) as error:
        print(f"brc: {error}", file=sys.stderr)
        return 2
    except BadEnvironment as error:
        print(f"brc: {error}", file=sys.stderr)
        return 1


def begin_here(arguments: list[str]) -> None:
    """Let every process find environments of the current folder. Raises ConfigError if this folder is gone, and for
    words that are not UTF-8."""
    try:
        call_here()
    except FileNotFoundError as error:
        raise ConfigError("the current folder is gone: call brc from another") from error
    for word in (*arguments, os.getcwd()):
        try:
            word.encode()
        except UnicodeEncodeError as error:
            shown = word.encode(errors="backslashreplace").decode()
            raise ConfigError(f"{shown} is not UTF-8: use another name, or set PYTHONUTF8=1 if it is") from error


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(" ".join(filter(None, ("brc", version(), commit()))))
        return 0
    name, *rest = arguments
    known: dict[str, Callable[[list[str]], int]] = {
        "train": train,
        "eval": lambda rest: parsed(commands.evaluate, rest, "brc eval"),
        "film": lambda rest: parsed(commands.film, rest, "brc film"),
        "export": lambda rest: parsed(commands.export, rest, "brc export"),
        "record": lambda rest: parsed(record, rest, "brc record"),
        "report": lambda rest: parsed(commands.report, rest, "brc report"),
        "status": lambda rest: parsed(commands.status, rest, "brc status"),
        "scale": lambda rest: parsed(commands.scale, rest, "brc scale"),
        "add-task": add_task,
        "stop": lambda rest: parsed(commands.stop, rest, "brc stop"),
        "logs": lambda rest: parsed(commands.logs, rest, "brc logs"),
        "remote": remote,
        "study": lambda rest: parsed(study, rest, "brc study"),
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
    from cluster.training import train as run_training

    return run_training(config, preset)


def add_task(arguments: list[str]) -> int:
    """Train a new run with the configuration of an old run, except for its tasks, its name and the given options."""
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
    options = [word for word in arguments[len(words) :] if word != "--keep"]
    if len(words) < 2:
        raise ConfigError("brc add-task needs a run and tasks, such as brc add-task RUN dmc/walker-walk")
    run, *tasks = words
    path = existing_run(Path(said(options, "--runs-folder") or RUNS).absolute(), run)
    preset, begun = successor(path, tuple(tasks), keep="--keep" in arguments)
    config = parse(Config, options, "brc add-task RUN TASK", default=begun)
    from cluster.training import train as run_training

    return run_training(config, preset)


def remote(arguments: list[str]) -> int:
    """Run a command on the cluster that is up, or here if there is none."""
    from cluster.deploy.remote import run_there

    return run_there(arguments, here=run)


def said(words: Sequence[str], option: str) -> str:
    """Return the value that the words give to an option, or ""."""
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == option:
            return value if equals else following
    return ""


def parsed(command: Callable[..., int], arguments: list[str], program: str) -> int:
    """Call a command with the arguments of the command line. The annotations of its parameters define its options."""
    result: int = parse(command, arguments, program)
    return result


def parse(what: Any, arguments: list[str], program: str, default: Any = None) -> Any:
    """Call tyro.cli. Raises ConfigError with one sentence made from tyro's boxed error message."""
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
    """Return the text below the title of tyro's box, and the first option that the box suggests."""
    paragraphs: list[list[str]] = [[]]
    for line in complaint.splitlines():
        text = line.strip(" │")
        if not text.strip("-─╭╮╰╯") or text.startswith("╭"):  # a horizontal line, or the frame with the title in it
            paragraphs.append([])
        else:
            paragraphs[-1].append(text)
    body, *others = [" ".join(lines) for lines in paragraphs[1:] if lines] or [complaint.strip()]
    for pattern, plain in PLAIN_WORDS:
        body = re.sub(pattern, plain, body)
    hint = next((text.split() for text in others if text.startswith("Perhaps you meant")), [])
    suggestion = f", did you mean {hint[3]}?" if len(hint) > 3 else ""
    return body.rstrip(".") + suggestion
