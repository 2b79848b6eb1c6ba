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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from cluster.errors import ConfigError
from cluster.plan.plan import Plan
from cluster.preflight.machine import this_machine
from cluster.preflight.validation import check
from cluster.run.folder import load_config, run_checkpoints
from cluster.run.registry import FileLease, Registry, find_registry
from cluster.study.study import OWN, Member, Study, words
from replay.store.locations import node_memory

FOLDER = "studies"  # below the folder of runs
POLL_S = 0.2
BESIDE_BYTES = 400_000_000  # of a run's processes beside networks and replay
FREE_OPTIONS = {*OWN, "preset", "steps", "report_interval", "checkpoint_interval", "keep_checkpoints", "ray_folder"}


def folder_of(study: Study, runs_folder: str) -> Path:
    return Path(runs_folder).absolute() / FOLDER / study.name


@dataclass
class Going:
    """A run in a process of its own. Its output is in a file."""

    member: Member
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    begun: float
    asked: bool = False  # to stop


@contextmanager
def held(study: Study, folder: Path) -> Iterator[None]:
    """Hold the study: no other process trains its runs meanwhile. Raises ConfigError if one does."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lease = FileLease(folder)
    except ConfigError as error:
        raise ConfigError(f"study {study.name} is being run already: stop it with `brc study stop`") from error
    try:
        (folder / "stop").unlink(missing_ok=True)
        yield
    finally:
        lease.release()


def state_of(registry: Registry, name: str) -> str:
    """Return the state of a run: done, live, begun or missing."""
    if registry.owner(name):
        return "live"
    state = registry.read(name, "state").state
    return "done" if state == "finished" else "begun" if state else "missing"


def check_members(members: Sequence[Member]) -> list[Plan]:
    """Check all runs before any begins: that each can work, and that those which were begun had the same options.
    Raises ConfigError."""
    plans = []
    for member in members:
        try:
            plans.append(check(member.config))
        except ConfigError as error:
            raise ConfigError(f"run {member.name}: {error}") from error
        path = Path(member.config.runs_folder) / member.name
        if (path / "config.yaml").is_file():
            ours, theirs = asdict(member.config), asdict(load_config(path)[1])
            differing = [key for key in ours if key not in FREE_OPTIONS and ours[key] != theirs[key]]
            if differing:
                raise ConfigError(
                    f"run {member.name} was begun with another {differing[0]} than the study has now: give the study "
                    "another name, or delete the run's folder"
                )
    return plans


def room(plans: Sequence[Plan]) -> int:
    """Return how many runs of these plans this machine has room for at a time, by its cores and its memory; 1 at
    least. A GPU serves one run."""
    machine = this_machine()
    if machine.gpus:
        return machine.gpus
    cores, memory = os.cpu_count() or 1, node_memory()[0]
    most_cores = max(cores_of(plan) for plan in plans)
    most_bytes = max(plan.replay_bytes + sum(plan.learner_bytes.values()) + BESIDE_BYTES for plan in plans)
    return max(1, min(int(cores // most_cores), int(0.8 * memory // most_bytes)))


def cores_of(plan: Plan) -> float:
    """Return the cores that a run keeps busy."""
    threads = max(1, plan.config.learner.threads) * plan.config.learner.ranks
    return float(threads) if plan.config.execution == "serial" else threads + plan.actor_cpus


def run(study: Study, members: Sequence[Member], at_once: int, say: Callable[[str], None]) -> int:
    """Train what is not done; go on with the other runs when one fails. Return 0 if all are done, 1 if runs failed, 130
    if it was stopped. A stop asks the live runs for a checkpoint and waits for them."""
    folder = folder_of(study, members[0].config.runs_folder)
    registry = find_registry(Path(members[0].config.runs_folder))
    plans = check_members(members)
    waiting = [member for member in members if state_of(registry, member.name) not in ("done", "live")]
    at_once = at_once or room(plans)
    done = len(members) - len(waiting)
    say(f"study {study.name}: {len(members)} runs, {done} done or live, {at_once} at a time")
    going: list[Going] = []
    failed: list[str] = []
    stopped = threading.Event()
    with held(study, folder), stopping(stopped):
        while (waiting and not stopped.is_set()) or going:
            while len(going) < at_once and not stopped.is_set() and (member := ready(waiting, registry)) is not None:
                waiting.remove(member)
                going.append(begin(member, folder))
                say(f"{member.name} begins")
            if not going and waiting and not stopped.is_set():  # what they begin with has failed, or is live elsewhere
                for member in waiting:
                    say(f"{member.name} cannot begin: {member.after} is not done")
                failed += [member.name for member in waiting]
                break
            time.sleep(POLL_S)
            if (folder / "stop").exists() and not stopped.is_set():
                stopped.set()
            if stopped.is_set():
                for one in going:
                    ask(one)
            for one in [one for one in going if one.process.poll() is not None]:
                going.remove(one)
                one.output.close()
                minutes = (time.monotonic() - one.begun) / 60
                code = one.process.returncode
                say(f"{one.member.name} {ended(code)} after {minutes:.1f} min")
                if code not in (0, 130):
                    failed.append(one.member.name)
                    say(f"  its output is in {folder / one.member.name}.log")
    if stopped.is_set():
        return 130
    return 1 if failed else 0


def ready(waiting: Sequence[Member], registry: Registry) -> Member | None:
    """Return the first of these runs that can begin: one that begins with another's agent waits until that is done."""
    for member in waiting:
        if not member.after or state_of(registry, member.after) == "done":
            return member
    return None


def ended(code: int) -> str:
    return {0: "is done", 130: "was stopped"}.get(code, f"failed with exit code {code}")


def begin(member: Member, folder: Path) -> Going:
    """Begin a run, or go on with it from its checkpoint."""
    path = Path(member.config.runs_folder) / member.name
    saved = False
    if (path / "config.yaml").is_file():
        saved = bool(run_checkpoints(member.config, path).names())
    command = [sys.executable, "-m", "cluster", "train", *words(member), *(["--resume"] if saved else [])]
    output = (folder / f"{member.name}.log").open("ab")
    # A session of its own: a Ctrl-C goes to this process alone, which then asks each run once.
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    return Going(member, process, output, time.monotonic())


def ask(one: Going) -> None:
    """Ask a run once to stop: a second signal would end it without a checkpoint."""
    if not one.asked:
        one.asked = True
        with suppress(ProcessLookupError):
            os.kill(one.process.pid, signal.SIGINT)


@contextmanager
def stopping(stopped: threading.Event) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP set the event."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
