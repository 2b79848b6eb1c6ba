"""Refuses a configuration that cannot work, in one sentence, before Ray or torch is imported."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Literal

from actors.backends import gl
from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import BACKENDS, UnknownNameError, backend_of, nearest, resolve
from cluster.config.fields import BOUNDS, check_bound, flag, get
from cluster.config.schema import Config
from cluster.errors import ConfigError
from cluster.plan.plan import LEAST_GPU, OPEN, Plan, make_plan, max_ahead, most_copies, option_of, part_of, sources
from cluster.plan.runtime import runtime
from cluster.preflight.machine import Machine, this_machine
from cluster.preflight.ray_folder import ray_folder
from cluster.preflight.room import check_memory, check_place, check_url, demonstration_bytes
from learner.agents.catalogue import description
from learner.networks.registry import architecture
from learner.scale.reckoning import WAYS, column_ranks, fits
from learner.spec import Ranks
from replay.shard import share


def validate(config: Config, machine: Machine | None = None) -> Plan:
    """Return the plan of a configuration, if it can work on the machine, by default this machine. Raises ConfigError
    for the first option that cannot work."""
    machine = machine or this_machine()
    plan = check(config, machine)
    if not machine.is_cluster:
        check_memory(plan, machine.gpus, demonstration_bytes(plan))
        if not config.resume:  # a resumed run may have its replay files already
            check_place(plan)
        if config.execution == "distributed":
            ray_folder(config.ray_folder)
    for name in ("replay.snapshots", "learner.checkpoints"):
        if get(config, name):
            check_url(flag(name), get(config, name))
    return plan


def check(config: Config, machine: Machine | None = None) -> Plan:
    """Like `validate`, without the checks of memory, disks and URLs."""
    machine = machine or this_machine()
    check_bounds(config)
    check_name(config)
    if not config.tasks:
        raise ConfigError("--tasks is empty: name at least one task or suite, see `brc suites`")
    try:
        tasks = resolve(config.tasks)
    except UnknownNameError as error:
        raise ConfigError(f"--tasks: {error}") from error
    check_backends(config, tasks)
    check_device(config, machine)
    check_ranks(config, machine)
    check_kinds(config, tasks)
    check_privileged(config, tasks)
    check_weights(config, [task.name for task in tasks])
    check_actors(config, list(dict.fromkeys(task.benchmark for task in tasks)))
    check_budget(config, tasks)
    check_demonstrations(config, tasks)
    plan = make_plan(config)
    check_seeds(plan)
    check_gpus(plan, machine)
    check_sharing(plan)
    return plan


def check_bounds(config: Config) -> None:
    for path in BOUNDS:
        check_bound(path, get(config, path), flag(path))


def check_name(config: Config) -> None:
    if config.name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", config.name):
        raise ConfigError(
            f"--name {config.name!r} cannot be a folder's name: use up to 100 letters, digits, dots or dashes"
        )


def check_backends(config: Config, tasks: Sequence[Task]) -> None:
    for task in tasks:
        backend = backend_of(task, config.actors.backend)
        module, install = BACKENDS[backend]
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"--tasks {task.name}: --actors.backend {backend} needs the package {module}: {install}")
        wanted = os.environ.get("MUJOCO_GL", "")
        if backend in gl.READERS and wanted.lower() not in gl.NO_RENDERER:
            try:
                gl.usable(wanted)
            except gl.NoRenderer as error:
                raise ConfigError(f"--tasks {task.name}: {error}; training needs none, so leave it unset") from error


def check_kinds(config: Config, tasks: Sequence[Task]) -> None:
    """Check that one agent can learn all of the tasks. Raises ConfigError."""
    learner = config.learner
    first = tasks[0]
    actions: Literal["continuous", "discrete"] = "discrete" if first.num_actions else "continuous"
    try:
        option = f"--learner.network {learner.network}"
        found = architecture(learner.network)
        option = f"--learner.agent {learner.agent}"
        agent = description(learner.agent, actions)
    except Exception as error:  # any error of the package that registers it
        raise ConfigError(f"{option}: {error}") from error
    for task in tasks:
        for kind, has, first_has in (
            ("discrete actions", task.num_actions > 0, first.num_actions > 0),
            ("images", bool(task.image), bool(first.image)),
        ):
            if has != first_has:
                have, lack = (task, first) if has else (first, task)
                raise ConfigError(f"--tasks {have.name} has {kind} and {lack.name} has none: train them in a run each")
    if agent.actions != actions:
        raise ConfigError(
            f"--learner.agent {learner.agent} is for {agent.actions} actions, and those of {first.name} are {actions}: "
            "use auto"
        )
    if found.batch and actions == "discrete":
        raise ConfigError(
            f"--learner.network {learner.network} normalises over the rows of a batch, which the agents for discrete "
            "actions do not know: use another"
        )
    if learner.ranks > 1 and learner.surgery != "none":
        raise ConfigError(
            f"--learner.surgery {learner.surgery} is for one rank, which has all rows of a batch: use none"
        )
    if learner.ranks > 1 and learner.conflict_interval:
        raise ConfigError(
            f"--learner.conflict-interval {learner.conflict_interval} is for one rank, which has all rows: use 0"
        )
    if learner.reward_normalizer == "none" and learner.loss == "categorical" and learner.value_limit <= 10.0:
        raise ConfigError(
            f"--learner.reward-normalizer none: raw returns are mostly beyond --learner.value-limit "
            f"{learner.value_limit:g}, where the categorical loss cuts them off: raise it, or use --learner.loss mse"
        )
    if first.image and learner.normalize_observations:
        raise ConfigError(
            f"--learner.normalize-observations: {first.name} shows images, whose numbers are in [0, 1]: leave it out"
        )
    if agent.acts == "critic" and (learner.sharding in ("shard", "tensor") or learner.replicas > 1):
        raise ConfigError(
            f"--learner.sharding {learner.sharding}: with {actions} actions the critic is what actors act with, and "
            "each rank must hold all of it: use replicate and 1 of --learner.replicas"
        )
    atari = any(task.benchmark == "atari" for task in tasks)
    if atari and config.execution == "serial" and config.atari.sticky:
        raise ConfigError(
            f"--atari.sticky {config.atari.sticky:g}: a serial run goes on exactly where it stopped, which random "
            "steps do not allow: use 0, or distributed execution"
        )


def check_privileged(config: Config, tasks: Sequence[Task]) -> None:
    """Check which observations only the critic sees. Raises ConfigError."""
    wanted, known = config.actors.privileged_keys, set[str]()
    for task in tasks:
        keys = {key for key, _ in task.observation_keys if key}
        if task.benchmark in OPEN:
            known |= keys
            if keys and keys <= set(wanted):
                raise ConfigError(
                    f"--actors.privileged-keys {' '.join(wanted)}: {task.name} observes nothing else, and its policy "
                    "must see something: leave one out"
                )
        if task.num_actions and task.privileged_keys and config.learner.privileged:
            raise ConfigError(f"--tasks {task.name}: its critic acts, so it can have no privileged observations")
        if task.num_actions and task.benchmark in OPEN and keys & set(wanted):
            raise ConfigError(
                f"--actors.privileged-keys: with the discrete actions of {task.name} the critic acts, so it can see no "
                "more than a policy: leave it out"
            )
    for key in wanted:
        if key not in known:
            raise ConfigError(
                f"--actors.privileged-keys {key}: no task of {' or '.join(OPEN)} observes it; "
                + (nearest(key, sorted(known)) if known else "none of them observes a Dict")
            )


def check_actors(config: Config, benchmarks: list[str]) -> None:
    """Check the options for actors of single benchmarks. Raises ConfigError."""
    fields = [path.split(".")[1] for path in BOUNDS if path.startswith("actors.")]
    for name, value in config.actors.of.items():
        benchmark, field = option_of(name)
        if benchmark not in benchmarks:
            raise ConfigError(f"--actors.of {name}: this run has no {benchmark!r}; {nearest(benchmark, benchmarks)}")
        if field not in fields:
            raise ConfigError(f"--actors.of {name}: there is no {field!r} to set; {nearest(field, fields)}")
        least, most = BOUNDS[f"actors.{field}"]
        whole = isinstance(getattr(config.actors, field), int)
        if not (math.isfinite(value) and least <= value <= most) or (whole and value != int(value)):
            kind = "a whole number" if whole else "a number"
            raise ConfigError(f"--actors.of {name} {value:g}: it must be {kind} from {least:g} to {most:g}")
    for benchmark in config.actors.runtime:
        if benchmark not in benchmarks:
            raise ConfigError(f"--actors.runtime: this run has no {benchmark!r}; {nearest(benchmark, benchmarks)}")
        runtime(config.actors, benchmark)
    if config.actors.runtime and config.execution == "serial":
        raise ConfigError("--actors.runtime is for processes of their own: leave it out of serial execution")
    of_actors = [name for name in config.actors.of if option_of(name)[1] != "action_repeat"]
    if of_actors and config.execution == "serial":
        raise ConfigError(
            f"--actors.of {of_actors[0]}: serial execution has one actor, so only action-repeat can be of a benchmark"
        )
    if "vector" in benchmarks and part_of(config.actors, "vector").action_repeat > 1:
        raise ConfigError("--actors.action-repeat: a vectorised simulator repeats actions itself, tell it to")
    if "atari" in benchmarks and part_of(config.actors, "atari").action_repeat > 1:
        raise ConfigError("--actors.action-repeat: Atari's games hold actions by --atari.frame-skip, set that instead")


def check_seeds(plan: Plan) -> None:
    """Check that there are seeds for all copies of all actors. Raises ConfigError."""
    for benchmark, count in plan.counts().items():
        if count > plan.most_actors(benchmark):
            raise ConfigError(
                f"--actors.count {count} of {benchmark} with {plan.part(benchmark).copies} copies of each task needs "
                f"more seeds than there are: use at most {plan.most_actors(benchmark)}, or fewer --actors.copies"
            )


def check_device(config: Config, machine: Machine) -> None:
    learner = config.learner
    if learner.device == "cuda" and not machine.gpus:
        raise ConfigError(f"--learner.device cuda: {machine.name} has no NVIDIA GPU; use auto or cpu")
    if learner.precision == "tf32" and (learner.device == "cpu" or not machine.gpus):
        raise ConfigError("--learner.precision tf32 is for NVIDIA GPUs; use auto, float32 or bf16")


def check_ranks(config: Config, machine: Machine) -> None:
    learner = config.learner
    if learner.ranks > 1 and config.execution == "serial":
        raise ConfigError(f"--learner.ranks {learner.ranks}: serial execution has one process, so use 1")
    if learner.sharding != "tensor" and learner.batch_size % learner.ranks:
        fitting = max(ranks for ranks in range(1, learner.ranks) if learner.batch_size % ranks == 0)
        raise ConfigError(
            f"--learner.ranks {learner.ranks} cannot deal out --learner.batch-size {learner.batch_size} evenly: use "
            f"{fitting}"
        )
    gpus = machine.gpus
    if learner.ranks > gpus and (learner.device == "cuda" or (learner.device == "auto" and gpus)):
        raise ConfigError(
            f"--learner.ranks {learner.ranks}: each needs a GPU, and {machine.name} has {gpus}: use {gpus}"
        )
    if learner.ranks % learner.replicas:
        raise ConfigError(
            f"--learner.replicas {learner.replicas} does not divide --learner.ranks {learner.ranks}: use 1"
        )
    if learner.replicas > 1 and learner.sharding == "replicate":
        raise ConfigError(
            f"--learner.replicas {learner.replicas} is of a critic in parts: use --learner.sharding tensor or shard"
        )
    if learner.sharding == "tensor" and learner.batch_size % learner.replicas:
        raise ConfigError(
            f"--learner.replicas {learner.replicas} cannot deal out --learner.batch-size {learner.batch_size} evenly: "
            "use 1"
        )


def check_gpus(plan: Plan, machine: Machine) -> None:
    """Check that the actors and the learner's ranks find the GPUs that they ask for. Raises ConfigError."""
    wanted, learner = plan.actor_gpus, plan.config.learner
    if not wanted:
        return
    if plan.config.execution == "serial":
        raise ConfigError("--actors.gpus is for actors of their own: leave it out of serial execution")
    left = machine.gpus - (0.0 if learner.device == "cpu" else LEAST_GPU * learner.ranks)
    if wanted > left:
        raise ConfigError(
            f"--actors.gpus: the actors ask for {wanted:g} GPUs together, and {machine.name} has {machine.gpus}, of "
            f"which {max(0.0, left):g} are left beside the learner: lower it, or --actors.count"
        )


def check_sharing(plan: Plan) -> None:
    """Check that the learner's ranks can share the critic in the way that is asked for. Raises ConfigError."""
    learner = plan.config.learner
    ways = WAYS if learner.sharding == "auto" else (learner.sharding,)
    asked = [Ranks(0, learner.ranks, way, learner.replicas) for way in ways]
    if learner.ranks == 1 or any(fits(plan.networks, ranks) for ranks in asked):
        return
    columns = column_ranks(plan.networks, asked[0])
    if learner.sharding == "tensor" and learner.width % columns:
        raise ConfigError(
            f"--learner.width {learner.width}: {columns} ranks cannot divide the columns of a head evenly: use "
            f"{learner.width + columns - learner.width % columns}, or --learner.sharding shard"
        )
    raise ConfigError(
        f"--learner.sharding {learner.sharding}: the critic of --learner.agent {learner.agent} and --learner.network "
        f"{learner.network} cannot be divided, so each rank must hold all of it: use replicate and 1 of "
        "--learner.replicas"
    )


def check_weights(config: Config, tasks: list[str]) -> None:
    for name, weight in config.replay.task_weights.items():
        if name not in tasks:
            raise ConfigError(f"--replay.task-weights: {name!r} is not a task of this run; {nearest(name, tasks)}")
        if not (math.isfinite(weight) and 0.001 <= weight <= 1000):
            raise ConfigError(
                f"--replay.task-weights {name} {weight} is out of range: it must be from 0.001 to 1000, try 1"
            )


def check_demonstrations(config: Config, tasks: Sequence[Task]) -> None:
    """Check that the demonstrations name tasks of the run, and that there are some for updates before the first step.
    Raises ConfigError."""
    given, offline = config.replay.demonstrations, config.learner.offline_updates
    try:
        found = sources(given, tasks)
    except ValueError as error:
        raise ConfigError(f"--replay.demonstrations: {error}") from error
    if given and any(task.image or task.num_actions for task in tasks):
        raise ConfigError(
            "--replay.demonstrations are of flat observations and continuous actions: leave them out for these tasks"
        )
    missing = [task.name for index, task in enumerate(tasks) if index not in {source.task for source in found}]
    if offline and missing:
        raise ConfigError(
            f"--learner.offline-updates {offline}: there are no --replay.demonstrations of {missing[0]}, so nothing to "
            "learn it from: name some, or leave it out"
        )


def check_budget(config: Config, tasks: Sequence[Task]) -> None:
    learner, replay = config.learner, config.replay
    copies = most_copies(config, tasks)
    if config.steps <= replay.warmup:
        raise ConfigError(
            f"--steps {config.steps} leaves nothing to learn from after --replay.warmup {replay.warmup}: "
            f"raise --steps above it or lower --replay.warmup"
        )
    if replay.warmup < replay.shards:
        raise ConfigError(
            f"--replay.warmup {replay.warmup} is less than one step for each of --replay.shards {replay.shards}: "
            f"use at least {replay.shards}"
        )
    least_steps = min(
        share(config.steps, shard, replay.shards) - share(replay.warmup, shard, replay.shards)
        for shard in range(replay.shards)
    )
    if least_steps < 1:
        raise ConfigError(
            f"--steps {config.steps} leaves some of --replay.shards {replay.shards} nothing to learn from after "
            f"--replay.warmup {replay.warmup}: use at least {replay.warmup + replay.shards}"
        )
    # A batch must become due before acting is stopped for being ahead.
    needed = math.ceil(1 / learner.updates_per_step) * replay.shards
    if max_ahead(config, copies) < needed:
        raise ConfigError(
            f"--replay.max-ahead {max_ahead(config, copies)} can never make a batch due at --learner.updates-per-step "
            f"{learner.updates_per_step:g}, so acting and learning would wait for each other: use at least {needed}"
        )
    push = copies * (replay.segment_length + 1)
    least = share(replay.capacity, replay.shards - 1, replay.shards)
    if least < 2 * push:
        raise ConfigError(
            f"--replay.capacity {replay.capacity} over {replay.shards} shards holds {least} transitions of a task, "
            f"less than two pushes of {push} ({copies} copies of {replay.segment_length} steps): "
            f"use at least {2 * push * replay.shards}"
        )
    if config.execution == "serial" and config.replay.max_ahead and config.replay.max_ahead < push:
        raise ConfigError(
            f"--replay.max-ahead {config.replay.max_ahead} is less than the {push} steps that one push brings in "
            f"serial execution: use at least {push}, or 0 to have it chosen"
        )
    if least_steps * learner.updates_per_step < 1:
        raise ConfigError(
            f"--learner.updates-per-step {learner.updates_per_step:g} makes no update in the {least_steps} steps that "
            f"a shard takes after warm-up: use at least {1.1 / least_steps:.2g}"
        )
