"""The `brc` commands other than `train`. The parameters of a function are the options of its command."""

from __future__ import annotations

import fnmatch
import json
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from actors.benchmarks.catalogue import BACKENDS, all_tasks, nearest
from actors.benchmarks.catalogue import suites as all_suites
from cluster.config import files
from cluster.config.fields import check_bound
from cluster.config.schema import RUNS, Config
from cluster.errors import ConfigError
from cluster.plan.plan import Plan
from cluster.plan.shapes import SEEN_AND_DONE, check_shapes
from cluster.preflight.validation import check
from cluster.run.folder import (
    REPORT,
    existing_run,
    load_config,
    newest_checkpoint,
    run_checkpoints,
    run_names,
)
from cluster.run.manifest import Manifest
from cluster.run.registry import FileRegistry, Registry, find_registry, known_run
from dashboards.sinks.console import duration, number
from dashboards.sinks.records import RowUnreadable
from learner.agents.catalogue import described
from replay.json_text import json_text
from replay.policy_store import PolicyMessage

Name = Annotated[str, tyro.conf.Positional]
Names = Annotated[tuple[str, ...], tyro.conf.Positional]


def suites(suite: Name = "") -> int:
    """Print all suites with sizes and whether each backend is installed, or the tasks of one suite with sizes.

    Args:
        suite: a suite whose tasks to print.
    """
    import importlib.util

    if suite and suite not in all_suites():
        raise ConfigError(f"unknown suite {suite!r}; {nearest(suite, all_suites())}")
    tasks = all_tasks()
    if not suite:
        for name, members in all_suites().items():
            widest = max(tasks[member].observation_size for member in members)
            more = max(tasks[member].privileged_size for member in members)
            actions = max(tasks[member].action_size for member in members)
            privileged = f" and {more} for the critic alone" if more else ""
            print(
                f"{name:24s} {len(members):3d} tasks, observations up to {widest}{privileged}, actions up to {actions}"
            )
        for name, (module, install) in BACKENDS.items():
            print(f"backend {name}: " + ("installed" if importlib.util.find_spec(module) else f"missing, {install}"))
        return 0
    for member in all_suites()[suite]:
        task = tasks[member]
        keys = " ".join(
            f"{key}:{size}" + ("(critic)" if key in task.privileged_keys else "") for key, size in task.observation_keys
        )
        print(
            f"{member:32s} obs {task.observation_size:3d} act {task.action_size:2d} limit {task.episode_limit}  {keys}"
        )
    return 0


def presets() -> int:
    """Print the presets, those in the folder `presets` here too, and what each of them trains."""
    for name, make in files.presets().items():
        config = make()
        print(f"{name:16s} {files.about(name)}")
        print(
            f"{'':16s} width {config.learner.width}, batch {config.learner.batch_size}, {config.steps:,} steps a task"
        )
    return 0


def status(run: Name = "", runs_folder: str = RUNS) -> int:
    """Print the state of all runs, or of one run in detail.

    Args:
        run: a run to show in detail.
        runs_folder: where runs are.
    """
    registry = find_registry(Path(runs_folder))
    names = [known_run(registry, run)] if run else registry.names()
    if not names:
        print("there are no runs; start one with `brc train quickstart`")
    for name in names:
        found, owner = registry.read(name), registry.owner(name)
        print(f"{name}: {state_of(registry, name)}, preset {found.preset or '?'}" + (f", {owner}" if owner else ""))
        if found.reason:
            print(f"  {found.reason}")
        if found.line:
            print(f"  {found.line}")
        if run:
            for line in json.loads(found.scores or "[]"):
                print(f"  {line}")
            for at, event, reason in json.loads(found.events or "[]"):
                print(f"  {ago(at)}: {event} {reason}")
            if found.heartbeat:
                print(f"  last heard of {ago(float(found.heartbeat))}")
            print(f"  folder {found.folder}, newest checkpoint {found.checkpoint or 'none'}")
    return 0


def ago(stamp: float) -> str:
    """Return how long ago a wall-clock time is, at least 0: the clock may have been set back, or be another host's."""
    return f"{duration(max(0.0, time.time() - stamp))} ago"


def state_of(registry: Registry, run: str) -> str:
    """Return the state of a run, in a word or two."""
    state = registry.read(run, "state").state or "never started"
    if state == "running":
        return "live" if registry.owner(run) else "died"  # without recording how
    return state


def report(runs: Names = (), output: str = "", apart: bool = False, runs_folder: str = RUNS) -> int:
    """Write an HTML page with curves, speed, events and configuration of a run, or of several runs side by side.

    Args:
        runs: names of runs, or patterns such as 'dogs-*'. Repetitions of one experiment become one curve.
        output: the file to write; empty is report.html in the run's folder, or for several runs in the folder of runs.
        apart: draw a curve for every run, also for repetitions.
        runs_folder: where runs are.
    """
    folder = Path(runs_folder)
    registry = find_registry(folder)
    known = run_names(folder)
    names = [name for asked in runs or ("",) for name in matching(known, asked)]
    found = [(existing_run(folder, name), name) for name in dict.fromkeys(names)]
    file = Path(output) if output else (found[0][0] if len(found) == 1 else folder) / REPORT
    if file.is_dir():
        raise ConfigError(f"--output {output} is a folder: name a file in it, such as {file / REPORT}")
    for path, _ in found:
        load_config(path)  # refuses a damaged configuration
    from dashboards.report.page import write  # after the checks: it imports matplotlib
    from dashboards.report.runs import load

    try:
        loaded = [load(path, state_of(registry, name)) for path, name in found]
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from error
    except RowUnreadable as error:
        raise ConfigError(str(error)) from error
    try:
        write(loaded, file, apart)
    except OSError as error:
        raise ConfigError(f"--output {file} cannot be written: {error.strerror or error}") from error
    print(file)
    return 0


def matching(known: list[str], asked: str) -> list[str]:
    """Return the run of exactly this name, else the runs that match it as a pattern, else the name itself."""
    return [asked] if asked in known else fnmatch.filter(known, asked) or [asked]


def logs(run: Name = "", runs_folder: str = RUNS) -> int:
    """Follow the console of a run on a cluster. Ctrl-C does not stop the run.

    Args:
        run: the run's name. If just one run is live, it is the default.
        runs_folder: where runs are.
    """
    from cluster.on_cluster import follow

    registry = find_registry(Path(runs_folder))
    return follow(registry, known_run(registry, run))


def stop(run: Name = "", runs_folder: str = RUNS, timeout: float = 120.0) -> int:
    """Stop a live run: it writes a checkpoint and ends.

    Args:
        run: the run's name. If just one run is live, it is the default.
        runs_folder: where runs are.
        timeout: seconds to wait for it to end.
    """
    registry = find_registry(Path(runs_folder))
    run = known_run(registry, run)
    # On a cluster a coordinator may be restarting: it will read this request.
    if not registry.owner(run) and (
        isinstance(registry, FileRegistry) or registry.read(run, "state").state != "running"
    ):
        raise ConfigError(f"run {run} is not live")
    registry.write(run, wish="stop")
    deadline = time.monotonic() + timeout
    while registry.owner(run) or registry.read(run, "state").state == "running":
        if not registry.owner(run) and isinstance(registry, FileRegistry):  # it died
            break
        if time.monotonic() > deadline:
            print(f"run {run} has not ended within {timeout:.0f} s")
            return 1
        time.sleep(0.2)
    print(f"run {run} has stopped")
    return 0


def scale(run_and_counts: Names = (), runs_folder: str = RUNS, timeout: float = 20.0) -> int:
    """Change the number of actors of a benchmark in a live run.

    Args:
        run_and_counts: the run's name, which is not needed if just one run is live, then benchmarks and their numbers
            of actors, such as dmc=32.
        runs_folder: where runs are.
        timeout: seconds to wait for the actors. Actors that the machines have no room for stay pending.
    """
    named = [word for word in run_and_counts if "=" not in word]
    if len(named) > 1:
        raise ConfigError(f"{named[1]}: name a benchmark and its actors, such as dmc=32")
    registry = find_registry(Path(runs_folder))
    run = known_run(registry, "".join(named))
    if not registry.owner(run):
        raise ConfigError(f"run {run} is not live")
    found = registry.read(run)
    if not found.desired:
        raise ConfigError(f"run {run} has no actors yet, or runs in lock step: there is nothing to scale")
    asked = check_counts(json.loads(found.most), [word for word in run_and_counts if "=" in word])
    registry.write(run, desired=json_text(json.loads(found.desired) | asked))
    deadline = time.monotonic() + timeout
    while True:
        said = registry.read(run, "fleet").fleet
        fleet = json.loads(said)["actors"] if said != found.fleet else {}
        # The report may be older than the request: the number alive may match by chance, so compare both.
        there = bool(fleet) and all(
            fleet[benchmark]["alive"] == fleet[benchmark]["desired"] == count for benchmark, count in asked.items()
        )
        if there or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    for benchmark, part in fleet.items():
        waiting = f", {part['pending']} pending" if part["pending"] else ""
        print(f"{benchmark}: {part['alive']} of {part['desired']} actors collect{waiting}")
    if not fleet:
        print(f"run {run} has not said within {timeout:.0f} s how many there are; `brc status {run}` will")
    return 0


def check_counts(most: dict[str, int], counts: Sequence[str]) -> dict[str, int]:
    """Return ["dmc=32"] as {"dmc": 32}. `most` has the most actors of each benchmark of the run. Raises ConfigError."""
    found = {}
    for text in counts:
        benchmark, _, count = text.partition("=")
        if benchmark not in most:
            raise ConfigError(f"{text}: this run has no {benchmark!r}; {nearest(benchmark, most)}")
        if not count.isdecimal() or not 1 <= int(count) <= most[benchmark]:
            raise ConfigError(
                f"{text}: name a whole number of actors from 1 to {most[benchmark]}, such as {benchmark}=4"
            )
        found[benchmark] = int(count)
    if not found:
        raise ConfigError(f"name a benchmark and its actors, such as {next(iter(most))}=4")
    return found


def evaluate(run: Name = "", episodes: int = 10, runs_folder: str = RUNS, seed: int = 0) -> int:
    """Score the deterministic policy of a run's newest checkpoint, and a random policy to compare with it.

    Args:
        run: the run's name.
        episodes: episodes of each task.
        runs_folder: where runs are.
        seed: seed of the initial states.
    """
    path = existing_run(Path(runs_folder).absolute(), run)  # environments may change the directory
    check_bound("evaluation.episodes", episodes, "--episodes")
    _, config = load_config(path)
    plan = check(replace(here(config), seed=seed, evaluation=replace(config.evaluation, episodes=episodes)))
    policy, manifest = newest_policy(path, plan)
    from actors.evaluator import Evaluator
    from cluster.run.evaluation_row import unsound
    from dashboards.progress import mean
    from dashboards.report.aggregate import finite

    for benchmark, file in config.actors.runtime.items():
        print(f"{benchmark} is played with this environment's packages, not those of {file} that the run has")
    evaluator = Evaluator(plan.evaluator())
    learned = evaluator.evaluate(policy, number=0)
    random = evaluator.evaluate(None, number=0)
    print(f"{run} at {manifest.env_steps:,} steps, {episodes} episodes a task (mean, least, greatest; random mean)")
    for task in learned.returns:
        returns, base = finite(learned.returns[task]), finite(random.returns[task])
        shown = [number(value) for value in (mean(returns), min(returns, default=None), max(returns, default=None))]
        print(f"{task:32s} {' '.join(f'{value:>8s}' for value in shown)}   {number(mean(base)):>8s}")
    for who, evaluation in (("", learned), ("the random policy in ", random)):
        for sentence in unsound(evaluation.returns):
            print(f"{who}{sentence}")
    return 0


def export(run: Name = "", folder: str = "", runs_folder: str = RUNS) -> int:
    """Write the policy of a run's newest checkpoint as safetensors and ONNX, with an example that acts with it.

    Args:
        run: the run's name.
        folder: folder to write to; empty is `policy` in the run's folder.
        runs_folder: where runs are.
    """
    path = existing_run(Path(runs_folder).absolute(), run)  # environments may change the directory
    _, config = load_config(path)
    plan = check(here(config))
    if described(plan.networks).choice != "tanh_normal":
        raise ConfigError(f"run {run} acts with its critic: brc export writes policies of continuous actions alone")
    message, manifest = newest_policy(path, plan)
    from cluster.cli.export import export as write

    for file in write(plan, message, manifest, Path(folder).absolute() if folder else path / "policy"):
        print(file)
    return 0


def film(run: Name = "", tasks: tuple[str, ...] = (), every: int = 4, folder: str = "", runs_folder: str = RUNS) -> int:
    """Film an episode of each task with the policy of a run's newest checkpoint, as GIFs. The run may be live.

    Args:
        run: the run's name.
        tasks: tasks to film; all if none is named.
        every: steps between two frames.
        folder: folder to write to; empty is `films` in the run's folder.
        runs_folder: where runs are.
    """
    path = existing_run(Path(runs_folder).absolute(), run)  # environments may change the directory
    plan = check(here(load_config(path)[1]))
    names = [task.name for task in plan.tasks]
    for name in tasks:
        if name not in names:
            raise ConfigError(f"--tasks {name!r}: run {run} has no such task; {nearest(name, names)}")
    if every < 1:
        raise ConfigError(f"--every {every}: it must be 1 or more")
    message, manifest = newest_policy(path, plan)
    from cluster.run.films import FOLDER, film_tasks

    place = Path(folder).absolute() if folder else path / FOLDER
    failed = 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C ends the filming process too
    try:
        for name, file, done in film_tasks(plan, tasks or names, message, every, place, manifest.env_steps):
            failed += bool(done.trouble)
            print(
                f"{name}: not filmed, {done.trouble}" if done.trouble else f"{file}: return {done.episode_return:.1f}"
            )
    except KeyboardInterrupt:
        return 130
    return 1 if failed else 0


def here(config: Config) -> Config:
    """Return the configuration changed to run the policy on this machine, which may not be the machine that trained."""
    learner = replace(config.learner, device="cpu", precision="float32", ranks=1, replicas=1)
    actors = replace(config.actors, runtime={})
    return replace(config, learner=replace(learner, sharding="auto"), actors=actors)


def newest_policy(path: Path, plan: Plan) -> tuple[PolicyMessage, Manifest]:
    """Return the policy and the manifest of a run's newest checkpoint. Raises CheckpointError.

    From this call on, SIGINT ends the process at once: the code that reads checkpoints takes KeyboardInterrupt for a
    damaged file, and an environment may never return to Python.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    checkpoints = run_checkpoints(plan.config, path)
    name, manifest = newest_checkpoint(path, checkpoints)
    checkpoints.verify(name)
    check_shapes(path.name, manifest.shapes, plan.tasks, only=SEEN_AND_DONE)
    from learner.state.checkpoint import CheckpointError
    from learner.state.dcp import load_policy

    try:
        return load_policy(plan.networks, checkpoints.url(name)), manifest
    except OSError as error:
        raise CheckpointError(f"{error}; {checkpoints.way_out(name)}") from error
