"""Trains the runs of a study that are not done, as many at a time as there is room for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cluster.config.fields import flag, get, options
from cluster.config.paths import absolute
from cluster.errors import ConfigError
from cluster.plan.plan import Plan, learner_threads
from cluster.preflight.machine import this_machine
from cluster.preflight.validation import check
from cluster.run.blank import clear
from cluster.run.folder import load_config, run_checkpoints
from cluster.run.registry import FileLease, Registry, find_registry
from cluster.study.study import OWN, Member, Study, words
from dashboards.report.curves import BY_THE_WAY
from dashboards.sinks import records
from replay.store.locations import node_memory

FOLDER = "studies"  # below the folder of runs
POLL_S = 0.2
BESIDE_BYTES = 400_000_000  # of a run's processes beside networks and replay
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass
class Going:
    """A run in a process of its own, with a place among those that run at a time. Its output is in a file."""

    member: Member
    place: int
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    begun: float
    asked: bool = False  # to stop


def folder_of(study: Study, runs_folder: str) -> Path:
    return Path(runs_folder).absolute() / FOLDER / study.name


@contextmanager
def held(what: str, folder: Path) -> Iterator[None]:
    """Hold a study or a sweep: no other process trains its runs meanwhile. Raises ConfigError if one does."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lease = FileLease(folder)
    except ConfigError as error:
        raise ConfigError(f"{what} is being run already: stop it with `brc {what.split()[0]} stop`") from error
    try:
        (folder / "stop").unlink(missing_ok=True)
        yield
    finally:
        lease.release()


def folder_of_run(member: Member) -> Path:
    return Path(member.config.runs_folder) / member.name


def state_of(registry: Registry, member: Member) -> str:
    """Return the state of a run: done, live, begun or missing. A run that was done with fewer steps than it has now is
    begun."""
    if registry.owner(member.name):
        return "live"
    state = registry.read(member.name, "state").state
    if not state or not (folder_of_run(member) / "config.yaml").is_file():
        return "missing"
    done = state == "finished" and load_config(folder_of_run(member))[1].steps >= member.config.steps
    return "done" if done else "begun"


def check_members(members: Sequence[Member]) -> list[Plan]:
    """Check all runs before any begins: that each can work, and that those which were begun had the same options.
    Raises ConfigError."""
    plans = []
    for member in members:
        try:
            plans.append(check(member.config))
        except ConfigError as error:
            raise ConfigError(f"run {member.name}: {error}") from error
        if not (folder_of_run(member) / "config.yaml").is_file():
            continue
        ours, theirs = absolute(member.config), absolute(load_config(folder_of_run(member))[1])
        for path in (path for path, _ in options(ours) if not is_free(path)):
            if get(ours, path) != get(theirs, path):
                raise ConfigError(
                    f"run {member.name} was begun with {flag(path)} {get(theirs, path)}, and the study has "
                    f"{get(ours, path)} now: give the study another name, or delete {folder_of_run(member)}"
                )
    return plans


def is_free(path: str) -> bool:
    """Whether an option says only how long, where and with which views a run goes on."""
    section, _, name = path.partition(".")
    return section in {*OWN, *BY_THE_WAY[""]} or name in BY_THE_WAY.get(section, ())


def room(plans: Sequence[Plan]) -> int:
    """Return how many runs of these plans this machine has room for at a time, 1 at least: by its GPUs, if it has any
    for them, by its cores and by its memory."""
    machine = this_machine()
    if machine.gpus and any(plan.config.learner.device != "cpu" for plan in plans):
        return max(1, machine.gpus // max(plan.config.learner.ranks for plan in plans))
    cores, memory = os.cpu_count() or 1, node_memory()[0]
    most_cores = max(cores_of(plan) for plan in plans)
    most_bytes = max(plan.replay_bytes + sum(plan.learner_bytes.values()) + BESIDE_BYTES for plan in plans)
    return max(1, min(int(cores // most_cores), int(0.8 * memory // most_bytes)))


def cores_of(plan: Plan) -> float:
    """Return the cores that a run keeps busy. A serial run without a number of threads takes all."""
    if plan.config.execution == "serial":
        return float(learner_threads(plan.config))
    return max(1, plan.config.learner.threads) * plan.config.learner.ranks + plan.actor_cpus


def run(study: Study, members: Sequence[Member], at_once: int, say: Callable[[str], None]) -> int:
    """Train what is not done; go on with the other runs when one fails. A stop asks the live runs for a checkpoint and
    waits for them. Return 0 if all runs are done, 130 if it was stopped, else 1."""
    registry = find_registry(Path(members[0].config.runs_folder))
    plans = check_members(members)
    at_once = at_once or room(plans)
    stopped = threading.Event()
    with held(f"study {study.name}", folder_of(study, members[0].config.runs_folder)), stopping(stopped):
        states = [state_of(registry, member) for member in members]
        waiting = [member for member, state in zip(members, states, strict=True) if state not in ("done", "live")]
        say(f"study {study.name}: {len(members)} runs, {len(members) - len(waiting)} done or live, {at_once} at a time")
        drive(study, waiting, at_once, max(plan.config.learner.ranks for plan in plans), registry, stopped, say)
    if stopped.is_set():
        return 130
    left = [member.name for member in members if state_of(registry, member) != "done"]
    if left:
        say(f"not done: {', '.join(left)}")
    return 1 if left else 0


def drive(
    study: Study,
    waiting: list[Member],
    at_once: int,
    ranks: int,
    registry: Registry,
    stopped: threading.Event,
    say: Callable[[str], None],
) -> None:
    """Train these runs. Whatever happens, no run goes on when this returns or raises."""
    going: list[Going] = []
    folder = folder_of(study, waiting[0].config.runs_folder) if waiting else Path()
    try:
        while (waiting and not stopped.is_set()) or going:
            while len(going) < at_once and not stopped.is_set() and (member := ready(waiting, registry)) is not None:
                waiting.remove(member)
                place = next(place for place in range(at_once) if place not in {one.place for one in going})
                going.append(begin(member, folder, place, ranks, registry))
                say(f"{member.name} begins")
            if not going and waiting and not stopped.is_set():  # what they begin with has failed, or is live elsewhere
                for member in waiting:
                    say(f"{member.name} cannot begin: {member.after} is not done")
                return
            time.sleep(POLL_S)
            if (folder / "stop").exists():
                stopped.set()
            if stopped.is_set():
                for one in going:
                    ask(one)
            for one in [one for one in going if one.process.poll() is not None]:
                going.remove(one)
                one.output.close()
                code, minutes = one.process.returncode, (time.monotonic() - one.begun) / 60
                say(f"{one.member.name} {ended(code)} after {minutes:.1f} min")
                if code not in (0, 130):
                    say(f"  its output is in {folder / one.member.name}.log")
    finally:
        for one in going:
            ask(one)
        for one in going:
            one.process.wait()


def ready(waiting: Sequence[Member], registry: Registry) -> Member | None:
    """Return the first of these runs that can begin: one that begins with another's agent waits until that is done."""
    for member in waiting:
        if not member.after or registry.read(member.after, "state").state == "finished":
            return member
    return None


def ended(code: int) -> str:
    return {0: "is done", 130: "was stopped"}.get(code, f"failed with exit code {code}")


def begin(member: Member, folder: Path, place: int, ranks: int, registry: Registry) -> Going:
    """Begin a run, or go on with it from its checkpoint. A run that ended before its first checkpoint begins anew."""
    path, saved = folder_of_run(member), False
    if (path / "config.yaml").is_file():
        before = absolute(load_config(path)[1])
        saved = bool(run_checkpoints(before, path).names())
        if not saved and not any(entry.event.kind == "checkpoint" for entry in records.read_events(path)):
            lease = registry.lease(member.name)
            try:
                clear(before, path, registry)
            finally:
                lease.release()
    environment = dict(os.environ)
    gpus = this_machine().gpus
    if gpus and VISIBLE not in environment and member.config.learner.device != "cpu":
        environment[VISIBLE] = ",".join(str((place * ranks + rank) % gpus) for rank in range(ranks))
    command = [sys.executable, "-m", "cluster", "train", *words(member), *(["--resume"] if saved else [])]
    output = (folder / f"{member.name}.log").open("ab")
    # A session of its own: a Ctrl-C goes to this process alone, which then asks each run once.
    process = subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )
    return Going(member, place, process, output, time.monotonic())


def ask(one: Going) -> None:
    """Ask a run once to stop: a second signal would end it without a checkpoint."""
    if not one.asked:
        one.asked = True
        with suppress(ProcessLookupError):
            os.kill(one.process.pid, signal.SIGINT)


@contextmanager
def stopping(stopped: threading.Event) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP set the event. Where SIGHUP is ignored, as under nohup, it stays ignored."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
