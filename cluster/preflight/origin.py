"""`brc add-task`: finds and checks the origin, the run whose agent a new run begins with."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from actors.benchmarks.catalogue import UnknownNameError, nearest, resolve
from cluster.config.schema import Config
from cluster.errors import ConfigError
from cluster.plan.plan import Plan, configured_tasks
from cluster.run.folder import load_config, newest_checkpoint, run_checkpoints
from cluster.run.manifest import Manifest
from learner.agents.catalogue import described
from learner.networks.description import Dense, placed
from learner.networks.spec import NetworkSpec, from_json
from learner.state.checkpoint import Checkpoints

if TYPE_CHECKING:
    from learner.spec import Origin

SIZES = (
    "observation_size",
    "privileged_size",
    "action_size",
    "num_tasks",
    "num_actions",
)  # fields that may differ from the origin's


def successor(path: Path, tasks: tuple[str, ...], keep: bool) -> tuple[str, Config]:
    """Return (preset, configuration) of a run on new tasks that begins with the agent of the run in `path`.

    With `keep` it also has the old tasks. Options for single tasks and benchmarks are kept where the new run has these.
    Raises ConfigError for unknown tasks.
    """
    preset, config = load_config(path)
    names = (*config.tasks, *tasks) if keep else tasks
    try:
        known = resolve(names)
    except UnknownNameError as error:
        raise ConfigError(str(error)) from error
    named, benchmarks = {task.name for task in known}, {task.benchmark for task in known}
    weights = {task: weight for task, weight in config.replay.task_weights.items() if task in named}
    runtime = {name: file for name, file in config.actors.runtime.items() if name in benchmarks}
    demonstrations = config.replay.demonstrations
    keys = {key for task in known for key, _ in task.observation_keys}
    privileged = tuple(key for key in config.actors.privileged_keys if key in keys)
    of = {name: value for name, value in config.actors.of.items() if name.split(".")[0] in benchmarks}
    old = [task.name for task in resolve(config.tasks)]
    given = [one if "=" in one and one.partition("=")[0] in old else f"{old[0]}={one}" for one in demonstrations]
    kept = tuple(one for one in given if one.partition("=")[0] in named)
    return preset, replace(
        config,
        tasks=names,
        name="",
        resume=False,
        origin=str(path.absolute()),
        origin_embedding="mean",
        replay=replace(config.replay, task_weights=weights, demonstrations=kept),
        learner=replace(config.learner, offline_updates=0),
        actors=replace(config.actors, of=of, runtime=runtime, privileged_keys=privileged),
    )


def newest(config: Config) -> tuple[Checkpoints, str, Manifest]:
    """Return the checkpoints of the origin, the name of the newest and its manifest."""
    path = Path(config.origin)
    if not (path / "config.yaml").is_file():
        raise ConfigError(f"--origin {path} is not the folder of a run; `brc status` lists the runs")
    checkpoints = run_checkpoints(load_config(path)[1], path)
    return checkpoints, *newest_checkpoint(path, checkpoints)


def check_origin(plan: Plan) -> None:
    """Check that a run can begin with its origin. Raises ConfigError, or CheckpointError for a damaged checkpoint."""
    config = plan.config
    if not config.origin or config.resume:  # a run that goes on has what it began with
        return
    checkpoints, checkpoint, manifest = newest(config)
    checkpoints.verify(checkpoint)
    saved = saved_networks(checkpoints, checkpoint)
    theirs, ours = described(saved), described(plan.networks)
    if theirs.actions != ours.actions:
        raise ConfigError(
            f"--tasks: the origin {config.origin} takes {theirs.actions} actions and these tasks {ours.actions} ones: "
            "begin without it"
        )
    begun = load_config(Path(config.origin))[1]
    for name in ("full_actions", "size", "stack"):
        old, new = getattr(begun.atari, name), getattr(config.atari, name)
        if plan.networks.image and old != new:
            raise ConfigError(f"--atari.{name.replace('_', '-')}: the origin {config.origin} has {old}, not {new}")
    for name in ("loss", "value_limit", "discount", "reward_normalizer"):  # they define what the critic's outputs mean
        old, new = getattr(begun.learner, name), getattr(config.learner, name)
        if old != new:
            raise ConfigError(
                f"--learner.{name.replace('_', '-')} {new}: the origin {config.origin} has {old}; use that"
            )
    for field in fields(NetworkSpec):
        old, new = getattr(saved, field.name), getattr(plan.networks, field.name)
        if old != new and field.name not in SIZES:
            option = "--learner." + field.name.replace("_", "-")
            raise ConfigError(f"{option} {new}: the origin {config.origin} has {old}; use that")
    if saved.learned_embeddings and plan.networks.num_tasks == 1 and not first_bias(plan.networks):
        raise ConfigError(
            f"--tasks: the first layer of --learner.network {plan.networks.network} has no bias, so one task alone "
            "cannot begin with an embedding of the origin: name two tasks or more"
        )
    if plan.networks.conditioning in ("one-hot", "heads") and max(saved.num_tasks, plan.networks.num_tasks) > 1:
        raise ConfigError(
            f"--learner.conditioning {plan.networks.conditioning} gives each task weights of its own, which a new task "
            "cannot begin with: begin from an agent with embeddings"
        )
    shared = [task for task in plan.tasks if task.name in begun.tasks or task.name in manifest.tasks]
    for task, before in zip(shared, configured_tasks(resolve([task.name for task in shared]), begun), strict=True):
        # Weights are taken over by the places of inputs, and values are of as many steps of the environment.
        for what, old, new in (
            ("--actors.privileged-keys", before.privileged_keys, task.privileged_keys),
            ("--actors.action-repeat", before.action_repeat, task.action_repeat),
        ):
            if old != new:
                raise ConfigError(f"{what} of {task.name} is {new}, and in the origin {config.origin} {old}; use that")
    known = ["mean", "random", *manifest.tasks]
    if config.origin_embedding not in known:
        raise ConfigError(
            f"--origin-embedding {config.origin_embedding!r} is neither mean nor random nor a task of the origin; "
            f"{nearest(config.origin_embedding, known)}"
        )


def first_bias(spec: NetworkSpec) -> bool:
    """Whether the first dense layer of the critic has a bias."""
    places = placed(described(spec).networks(spec)["critic"])
    return next(place.layer.bias for place in places if isinstance(place.layer, Dense))


def find_origin(plan: Plan) -> Origin | None:
    """Return the origin for the learner, which may need it several times; None for a run without an origin."""
    if not plan.config.origin:
        return None
    from learner.spec import MEAN, RANDOM, Origin

    checkpoints, name, manifest = newest(plan.config)
    known = manifest.tasks
    names = [task.name for task in plan.tasks]
    kinds = {"mean": MEAN, "random": RANDOM}
    like = plan.config.origin_embedding
    unknown = kinds[like] if like in kinds else known.index(like)
    return Origin(
        checkpoints.url(name),
        saved_networks(checkpoints, name),
        tuple(known.index(task) if task in known else unknown for task in names),
        tuple(known.index(task) if task in known else RANDOM for task in names),
    )


def saved_networks(checkpoints: Checkpoints, name: str) -> NetworkSpec:
    with checkpoints.open(name, "learner.json", "rb") as file:
        return from_json(json.load(file)["networks"])
