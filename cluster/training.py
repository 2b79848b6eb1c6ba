"""`brc train`: from a configuration to a finished run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import suppress

from actors.backends.returned import Astray, BadEnvironment, Exited
from actors.benchmarks.catalogue import benchmark_of
from actors.causes import Cause
from cluster.config.paths import absolute
from cluster.config.schema import Config
from cluster.errors import RunFailed
from cluster.plan.plan import Plan
from cluster.preflight.device import learner_device
from cluster.preflight.machine import this_machine
from cluster.preflight.origin import check_origin
from cluster.preflight.ray_address import is_cluster
from cluster.preflight.ray_folder import ray_folder
from cluster.preflight.validation import validate
from cluster.preflight.way_back import sentence, strays
from cluster.run.blank import give_up_replay, is_blank
from cluster.run.films import film_at_end
from cluster.run.folder import RunFolder, open_run
from cluster.run.mirrors import LOCAL, check_mirrors, ray_shown, show
from cluster.run.registry import LeaseLost
from cluster.run.replay_plan import clear_live, live_folder
from cluster.run.session import Session
from cluster.run.signals import stop_requests
from dashboards.events import Failed, Finished, Stopped
from dashboards.sinks.console import Console
from learner.scale.waiting import ENVIRONMENT
from replay.store.locations import left_behind

EXPECTED = (RunFailed, BadEnvironment, Exited, OSError)  # shown as a message, without a traceback
DISTRIBUTED = "--execution distributed"  # the option that resumes a serial run whose tasks stray


def train(config: Config, preset: str) -> int:
    """Run to the end. Return the exit code: 0 done, 1 a part failed, 130 stopped by a signal or `brc stop`.

    Raises ConfigError, before Ray or torch is imported, if the configuration cannot work, and CheckpointError for a
    damaged file.
    """
    config = absolute(config)
    if is_cluster(os.environ.get("RAY_ADDRESS", "")):
        from cluster.on_cluster import train_on_cluster

        return train_on_cluster(config, preset)
    plan = validate(config)
    check_mirrors(config)
    check_origin(plan)
    stray = strays(plan)
    folder = open_run(plan, preset)
    with (
        folder,
        Console([task.name for task in plan.tasks], config.steps) as console,
        stop_requests(console.say, folder.presence),
    ):
        if stray:
            console.say(f"{sentence(stray)}: this serial run can only be resumed with {DISTRIBUTED}")
        goes_on_with = DISTRIBUTED if stray else ""
        code = conduct(plan, preset, folder, console, lambda session: drive(plan, session), goes_on_with=goes_on_with)
    if code == 0:  # the run is over: a signal ends only its films
        film_at_end(plan, folder, lambda text: print(text, flush=True))
    return code


def cautions(plan: Plan) -> dict[str, list[str]]:
    """Return what one must know before results are compared, with the tasks that it is about."""
    found: dict[str, list[str]] = {}
    for task in plan.tasks:
        if caution := benchmark_of(task.name).caution(task):
            found.setdefault(caution, []).append(task.name)
    return found


def conduct(
    plan: Plan,
    preset: str,
    folder: RunFolder,
    console: Console,
    drive: Callable[[Session], bool],
    again: bool = False,
    address: str = LOCAL,
    goes_on_with: str = "",
) -> int:
    """Conduct an open run from its first event to its last; return its exit code. `drive` trains, and returns whether
    it reached the end. Metrics are served at `address`, which is this machine's. `goes_on_with` holds options without
    which the run cannot be resumed.

    Raises LeaseLost when another process has taken over the run; the run continues there.
    """
    session = exporter = None
    try:
        session = Session(plan, folder, console)
        exporter = show(session, plan, address)
        for caution, names in cautions(plan).items():
            console.say(f"note: {', '.join(names)}: {caution}")
        session.begin(preset, again)
        completed = drive(session)
    except LeaseLost:
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        folder.presence.say(state="failed", reason=reason)
        if session is not None:
            with suppress(OSError):  # the disk may be full
                session.ended(Failed(reason=reason, cause=cause_of(error)))
            session.write_report("failed")
        expected = isinstance(error, EXPECTED)
        if expected:
            console.say(f"run {folder.name} failed: {error}")
        goes_on_with = DISTRIBUTED if isinstance(error, Astray) else goes_on_with
        console.say(after_failure(plan.config, folder, goes_on_with, address != LOCAL))
        if exporter is not None:
            exporter.wait_until_heard(folder.presence.stop)
        if not expected:
            raise
        return 1
    end = Finished() if completed else Stopped(reason="asked to")
    session.ended(end)
    session.summary(end.kind)
    if not completed and folder.checkpoints.names():
        console.say(f"go on with: {resume_command(plan.config, folder, goes_on_with, address != LOCAL)}")
    session.close()
    return 0 if completed else 130


def cause_of(error: BaseException) -> Cause:
    """Return why a run failed, as a Cause."""
    if isinstance(error, RunFailed):
        return error.cause
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # of torch, or of Ray
        return Cause.OUT_OF_MEMORY
    return Cause.DIED if isinstance(error, OSError) else Cause.RAISED


def drive(plan: Plan, session: Session) -> bool:
    """Train the whole run on this machine, in the configured execution. The heavy imports happen here."""
    os.environ.update(ENVIRONMENT)  # before torch is loaded
    device = learner_device(plan.config.learner.device)
    session.console.say(f"the learner computes on {'an NVIDIA GPU' if device == 'cuda' else 'the CPU'}")
    live = live_folder(plan, session.folder)
    stop = session.folder.presence.stop
    if plan.config.execution == "serial":
        from cluster.serial import SerialRun

        clear_live(live, keep=0)
        return SerialRun(plan, session, device).run(stop)
    from cluster.backend.local_ray import local_ray
    from cluster.backend.parts import Parts
    from cluster.supervise.coordinator import Coordinator

    clear_live(live, keep=len(plan.shards))
    session.replay_files(live, left_behind(but=live))
    sessions, why = ray_folder(plan.config.ray_folder)
    if why:
        session.console.say(f"Ray has its sessions in {sessions}, since {why}")
    found = this_machine().gpus
    gpus = max(plan.config.learner.ranks, found) if device == "cuda" else (found if plan.actor_gpus else 0)
    with local_ray(plan, gpus), ray_shown(plan, session):
        return Coordinator(plan, session, live, device, Parts(session.folder.id)).run()


def after_failure(config: Config, folder: RunFolder, goes_on_with: str, remote: bool) -> str:
    """Return a sentence that says what to do after a failure. Remove the replay of a run that has no checkpoint."""
    try:
        saved, blank = bool(folder.checkpoints.names()), is_blank(folder.path, folder.checkpoints)
    except Exception as error:  # any error of a remote file system
        return f"whether it has a checkpoint to go on from cannot be told: {type(error).__name__}: {error}"
    if saved:
        return f"go on from its last checkpoint with: {resume_command(config, folder, goes_on_with, remote)}"
    give_up_replay(config, folder.path)
    if blank:
        return "nothing was learned yet: the same command begins it anew"
    return "it has no checkpoint to go on from: begin anew under another --name"


def resume_command(config: Config, folder: RunFolder, goes_on_with: str, remote: bool) -> str:
    """Return the whole command that goes on with a run."""
    is_usual = config.runs_folder == absolute(Config()).runs_folder
    elsewhere = "" if is_usual else f"--runs-folder {shlex.quote(config.runs_folder)}"
    return " ".join(filter(None, (f"brc {'remote ' * remote}resume {folder.name}", elsewhere, goes_on_with)))
