"""`brc record`: writes demonstrations, from a run's policy or from its replay."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import UnknownNameError, resolve
from cluster.cli.commands import Name, here, newest_policy
from cluster.config.schema import RUNS
from cluster.errors import ConfigError
from cluster.plan.plan import Plan, configured_tasks
from cluster.preflight.validation import check
from cluster.run.folder import existing_run, load_config, newest_checkpoint, replay_url, run_checkpoints
from replay.demonstrations import INSTALL, Episode, to_episodes, write_minari, write_npz
from replay.store.ring import unpack


def record(
    run: Name = "",
    to: str = "",
    episodes: int = 10,
    replay: bool = False,
    only_successes: bool = False,
    as_task: str = "",
    format: Literal["minari", "npz"] = "minari",
    runs_folder: str = RUNS,
) -> int:
    """Write demonstrations of each task of a run, which other runs can sample by --replay.demonstrations.

    Args:
        run: the run's name.
        to: folder to write to; empty is `demonstrations` in the run's folder.
        episodes: episodes of each task, played with the deterministic policy of the newest checkpoint.
        replay: write what replay held at the newest checkpoint instead, as parts of episodes.
        only_successes: keep the episodes with success alone, of `episodes` that are played.
        as_task: play this task instead, with the rewards of its own, of a run of one task with the same sizes: so an
            agent that learned from dense rewards shows a task with sparse ones.
        format: minari writes a dataset for each task, npz a file.
        runs_folder: where runs are.
    """
    if episodes < 1:
        raise ConfigError(f"--episodes {episodes}: it must be 1 or more")
    path = existing_run(Path(runs_folder).absolute(), run)
    plan = check(here(load_config(path)[1]))
    if as_task:
        plan = replace(plan, tasks=(other_task(plan, as_task, replay),))
    if any(task.image or task.num_actions for task in plan.tasks):
        raise ConfigError(f"run {run} has images or discrete actions: brc record writes neither")
    place = Path(to).absolute() if to else path / "demonstrations"
    places = [target(place, task, format) for task in plan.tasks]
    if taken := [one for one in places if one.exists()]:
        raise ConfigError(f"--to {place}: {taken[0]} exists already, remove it or write to another folder")
    if format == "minari" and importlib.util.find_spec("minari") is None:
        raise ConfigError(f"--format minari: Minari is not installed: {INSTALL}, or use npz")
    found = of_replay(plan, path) if replay else of_policy(plan, path, episodes, only_successes)
    for task, made, file in zip(plan.tasks, found, places, strict=True):
        if not made:
            print(f"{task.name}: nothing to write")
            continue
        said = f"{len(made)} {'parts of episodes' if replay else 'episodes'} of {task.name} by run {run}"
        if format == "npz":
            write_npz(file, made)
        else:
            write_minari(place, str(file.relative_to(place)), made, said)
        returns = [float(episode.rewards.sum(dtype=np.float64)) for episode in made]
        steps = sum(len(episode.rewards) for episode in made)
        print(f"{file}: {said}, {steps:,} steps, mean return {np.mean(returns):.1f}")
        print(f"  --replay.demonstrations {task.name}={file}")
    return 0


def target(place: Path, task: Task, format: str) -> Path:
    """Return where the demonstrations of a task are written: a folder of Minari, or an npz file."""
    benchmark, _, short = re.sub("[^A-Za-z0-9_/-]", "-", task.name).partition("/")
    short = short.replace("/", "-")
    return place / f"{benchmark}-{short}.npz" if format == "npz" else place / benchmark / f"{short}-v0"


def other_task(plan: Plan, name: str, replay: bool) -> Task:
    """Return the task of this name, to be played with the policy of the plan's only one. Raises ConfigError."""
    try:
        found = configured_tasks(resolve([name]), plan.config)
    except UnknownNameError as error:
        raise ConfigError(f"--as-task: {error}") from error
    sizes = [(task.observation_keys, task.action_size, task.action_repeat) for task in (*plan.tasks, *found)]
    if replay or len(sizes) != 2 or sizes[0] != sizes[1]:
        raise ConfigError(
            f"--as-task {name}: it is for the policy of a run of one task with the same observations and actions, and "
            f"this run has {', '.join(task.name for task in plan.tasks)}"
        )
    return found[0]


def of_policy(plan: Plan, path: Path, episodes: int, only_successes: bool) -> list[list[Episode]]:
    """Return played episodes of each task."""
    message, _ = newest_policy(path, plan)
    from actors.recorder import record as played

    found = []
    for index in range(len(plan.tasks)):
        made, successes = played(plan.evaluator(), index, message, episodes, index * episodes)
        found.append([one for one, success in zip(made, successes, strict=True) if success or not only_successes])
    return found


def of_replay(plan: Plan, path: Path) -> list[list[Episode]]:
    """Return what replay held of each task at the newest checkpoint."""
    from replay.shard import Shard

    config = load_config(path)[1]
    _, manifest = newest_checkpoint(path, run_checkpoints(config, path))
    found: list[list[Episode]] = [[] for _ in plan.tasks]
    for spec in plan.shards:
        shard = Shard(replace(spec, snapshots=replay_url(config, path), snapshot=manifest.replay, demonstrations=()))
        for task, ring in enumerate(shard.storage.rings):
            packed, flags = ring.copy(ring.tail, ring.head)
            rows = unpack(packed, flags, ring.observations.shape[1:], spec.storage.dtype, spec.storage.action_size)
            found[task] += to_episodes(rows, plan.tasks[task].action_size) if len(flags) else []
    return found
