"""The `brc` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from actors.backends.here import call_here
from actors.backends.returned import BadEnvironment
from actors.benchmarks.catalogue import nearest
from cluster.cli import commands, runs, share
from cluster.cli.parsing import parsed
from cluster.cli.record import record
from cluster.cli.study import study
from cluster.cli.sweep import sweep
from cluster.cli.train import STARTS, add_task, resume, shipped_words, train
from cluster.cli.watch import watch
from cluster.errors import ConfigError
from cluster.run.registry import RegistryAway
from cluster.run.version import commit, version
from dashboards.sinks.view import shown
from learner.state.checkpoint import CheckpointError

USAGE = """usage: brc COMMAND ...

  brc train PRESET [--learner.width 512 ...]   train; `brc train PRESET --help` lists every option
  brc train --config FILE                      train what a YAML file says, such as the config.yaml of a run
  brc train PRESET --seeds 0 1 2               train several seeds, with one page
  brc train PRESET --dry-run, --print-config   show what would be trained
  brc resume RUN [--steps 200000 ...]          go on with a run, with its options and changes of them
  brc eval RUN [--episodes 10]                 score a run's newest checkpoint
  brc film RUN                                 film an episode of each task
  brc export RUN                               write its policy for other programs
  brc record RUN --to FOLDER                   write demonstrations of its tasks, from its policy or its replay
  brc report RUN [RUN ...]                     write a page of one run, or of several side by side
  brc status [RUN]                             all runs, or one
  brc compare RUN RUN                          options in which two runs differ
  brc copy RUN NAME                            a copy of a run, which goes on by itself
  brc delete RUN ...                           delete runs with all that belongs to them
  brc push RUN hf://NAME/REPOSITORY            publish a run with a card of its results; also s3:// or a folder
  brc pull hf://NAME/REPOSITORY NAME           fetch a published run
  brc watch [--port 8000]                      live pages of all runs, at a local address
  brc scale RUN dmc=32                         have another number of a benchmark's actors in a live run
  brc add-task RUN TASK ... [--keep]           train on other tasks, beginning with what a run has learned
  brc stop RUN                                 stop a live run cleanly
  brc logs RUN                                 follow the console of a run on a cluster
  brc remote COMMAND ...                       the same on the cluster that is up, or here if none is
  brc study NAME|FILE                          train the variants of a study, and write a page that compares them
  brc study list, status, stop, report         shipped studies; or the state, the end or the page of one
  brc sweep FILE                               search values of options with Optuna; also status, stop and report
  brc suites [SUITE]                           suites, or the tasks of one
  brc presets                                  presets
  brc --version                                this version, and its commit
"""
TRAINING = (*STARTS, "study", "sweep")  # commands that go on when nobody reads what they print


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `brc` command and return its exit code.

    0: done. 1: a part of the run failed. 2: bad input. 130: stopped by a signal. 141: nobody reads what a command
    prints; commands that train go on in that case, here or on a cluster."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given[1:] if given[:1] == ["remote"] else given
    return shown(lambda: refusing(given), lasting=bool(command) and command[0] in TRAINING)


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
        "resume": resume,
        "compare": lambda rest: parsed(runs.compare, rest, "brc compare"),
        "copy": lambda rest: parsed(runs.copy, rest, "brc copy"),
        "delete": lambda rest: parsed(runs.delete, rest, "brc delete"),
        "stop": lambda rest: parsed(commands.stop, rest, "brc stop"),
        "logs": lambda rest: parsed(commands.logs, rest, "brc logs"),
        "remote": remote,
        "study": lambda rest: parsed(study, rest, "brc study"),
        "sweep": lambda rest: parsed(sweep, rest, "brc sweep"),
        "watch": lambda rest: parsed(watch, rest, "brc watch"),
        "push": lambda rest: parsed(share.push, rest, "brc push"),
        "pull": lambda rest: parsed(share.pull, rest, "brc pull"),
        "suites": lambda rest: parsed(commands.suites, rest, "brc suites"),
        "presets": lambda rest: parsed(commands.presets, rest, "brc presets"),
    }
    if name not in known:
        raise ConfigError(f"unknown command {name!r}; {nearest(name, known)}")
    return known[name](rest)


def remote(arguments: list[str]) -> int:
    """Run a command on the cluster that is up, or here if there is none."""
    from cluster.deploy.remote import run_there

    if arguments[:1] == ["train"]:
        return run_there(["train", *shipped_words(arguments[1:])], here=lambda _: run(arguments))
    return run_there(arguments, here=run)
