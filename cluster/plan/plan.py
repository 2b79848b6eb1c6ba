"""Derives the specification of each part of a run from its configuration. Imports neither torch nor Ray."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.actor import ActorSpec, Assignment
from actors.benchmarks.atari import configured
from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import nearest, resolve
from actors.environments import COPY_INDICES, copy_seed
from actors.evaluator import EVALUATION_STREAM, EvaluatorSpec
from cluster.config.schema import ActorsConfig, AtariConfig, Config
from learner.agents.acting import Epsilon
from learner.agents.catalogue import acting
from learner.config import MEASURED, Device
from learner.networks.spec import NetworkSpec, network_spec
from learner.scale.memory import footprint
from learner.scale.reckoning import reckoned
from learner.spec import Ranks, Sharding
from replay.demonstrations import Source
from replay.rate_limiter import RateLimit
from replay.shard import ShardSpec, share
from replay.store.storage import StorageSpec

OPEN = ("gymnasium", "vector")  # benchmarks whose users say what is privileged
LEAST_GPU = 0.1  # share of a GPU that a rank of the learner needs
MOST_ACTORS = 1 << 12  # of a benchmark: the indices of actors are made from it


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about a run that follows from its configuration."""

    config: Config
    tasks: tuple[Task, ...]
    shards: tuple[ShardSpec, ...]
    total_updates: int

    @property
    def observation_size(self) -> int:
        return max(task.observation_size for task in self.tasks)

    @property
    def privileged_size(self) -> int:
        return max(task.privileged_size for task in self.tasks)

    @property
    def action_size(self) -> int:
        return max(task.action_size for task in self.tasks)

    @property
    def networks(self) -> NetworkSpec:
        return network_spec(
            self.config.learner,
            observation_size=self.observation_size,
            action_size=self.action_size,
            num_tasks=len(self.tasks),
            privileged_size=self.privileged_size,
            num_actions=tuple(task.num_actions for task in self.tasks) if self.most_actions else (),
            image=self.tasks[0].image,
        )

    @property
    def most_actions(self) -> int:
        """The largest number of discrete actions of a task; 0 where actions are not discrete."""
        return max(task.num_actions for task in self.tasks)

    @property
    def epsilon(self) -> Epsilon:
        """The share of random actions in training, where actions are discrete."""
        exploration = self.config.exploration
        return Epsilon(exploration.epsilon, max(1, round(exploration.steps * self.config.learner.updates_per_step)))

    def ranks(self, device: Device) -> Ranks:
        """Return how the learner's ranks on this device share the critic, as the first rank has it. `auto` is the way
        that is reckoned the fastest."""
        config = self.config.learner
        ranks = Ranks(0, config.ranks, "replicate", config.replicas)
        if config.sharding != "auto":
            return replace(ranks, sharding=config.sharding) if config.ranks > 1 else ranks
        return replace(ranks, sharding=next(iter(self.reckoned(device)), "replicate"))

    def reckoned(self, device: Device) -> dict[Sharding, float]:
        """Return the reckoned seconds of an update for each way in which ranks can share the critic, the fastest first.
        Return nothing for a single rank."""
        config = self.config.learner
        ranks = Ranks(0, config.ranks, "replicate", config.replicas)
        return reckoned(self.networks, config, ranks, device) if config.ranks > 1 else {}

    @property
    def learner_bytes(self) -> dict[str, int]:
        """Bytes that each of the learner's ranks takes on a CPU, by purpose."""
        config, ranks = self.config.learner, self.ranks("cpu")
        return footprint(
            self.networks,
            config.batch_size,
            config.batches_per_request,
            config.precision,
            config.ranks,
            ranks.sharding,
            config.replicas,
            "cpu",
            config.compares_gradients and len(self.tasks) > 1,
        )

    @property
    def replay_bytes(self) -> int:
        return sum(shard.storage.nbytes for shard in self.shards)

    @property
    def samples_per_insert(self) -> float:
        """updates_per_step * batch_size / tasks."""
        learner = self.config.learner
        return learner.updates_per_step * learner.batch_size / len(self.tasks)

    def actor(self, what: Assignment, incarnation: int = 0) -> ActorSpec:
        """Return the spec of the actor with this assignment, in its `incarnation`-th life."""
        config, part = self.config, self.part(what.benchmark)
        position = self.benchmarks.index(what.benchmark)
        most = part.copies * (len(self.tasks) if config.execution == "serial" else self.sizes[what.benchmark])
        return ActorSpec(
            name=what.name,
            index=position * MOST_ACTORS + what.number,
            tasks=tuple((task, self.tasks[task]) for task in what.tasks),
            copies=part.copies,
            first_copy=position * (COPY_INDICES // len(self.benchmarks)) + what.number * most,
            observation_size=self.observation_size,
            action_size=self.action_size,
            segment_length=config.replay.segment_length,
            discount=config.learner.discount,
            seed=config.seed,
            acting=acting(self.networks, self.epsilon),
            backend=part.backend,
            threads=part.threads,
            incarnation=incarnation,
            measures_returns=config.learner.reward_normalizer in MEASURED,
            waits=config.learner.offline_updates > 0,
        )

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Benchmarks of the tasks, in the order of their first tasks."""
        return tuple(dict.fromkeys(task.benchmark for task in self.tasks))

    def part(self, benchmark: str) -> ActorsConfig:
        """Return the configuration of a benchmark's actors."""
        return part_of(self.config.actors, benchmark)

    def counts(self) -> dict[str, int]:
        """Return the number of actors of every benchmark at the start of the run."""
        return actor_counts(self.config, self.tasks)

    @property
    def actor_cpus(self) -> float:
        """CPUs that the actors ask Ray for at the start of the run."""
        return sum(count * self.part(benchmark).cpus for benchmark, count in self.counts().items())

    @property
    def actor_gpus(self) -> float:
        """GPUs that the actors ask Ray for at the start of the run."""
        return sum(count * self.part(benchmark).gpus for benchmark, count in self.counts().items())

    @property
    def rank_gpus(self) -> float:
        """The share of a GPU that each of the learner's ranks asks for, if it has one: what the actors leave of it."""
        return max(LEAST_GPU, 1.0 - self.actor_gpus / self.config.learner.ranks)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of tasks of every benchmark."""
        return dict(Counter(task.benchmark for task in self.tasks))

    def most_actors(self, benchmark: str) -> int:
        """Return the most actors of a benchmark for which there are seeds."""
        most = COPY_INDICES // len(self.benchmarks) // (self.sizes[benchmark] * self.part(benchmark).copies)
        return min(MOST_ACTORS, most)

    def assignments(self, counts: dict[str, int]) -> list[Assignment]:
        """Deal tasks to `counts` actors of every benchmark so that every task has equally many copies.

        With fewer actors than tasks, every task of the benchmark is in exactly one actor. With more, every actor has
        one task, and the numbers of actors of two tasks differ by at most one; the rate limiter then holds tasks to
        equal steps.
        """
        found = []
        for benchmark, count in counts.items():
            tasks = [index for index, task in enumerate(self.tasks) if task.benchmark == benchmark]
            for index in range(count):
                dealt = tasks[index::count] if count < len(tasks) else [tasks[index % len(tasks)]]
                found.append(Assignment(benchmark, index, tuple(dealt)))
        return found

    def everything(self) -> Assignment:
        """Return the assignment of the one actor of serial execution."""
        return Assignment(self.benchmarks[0], 0, tuple(range(len(self.tasks))))

    def evaluator(self, benchmark: str = "") -> EvaluatorSpec:
        """Return the spec of the evaluator of a benchmark's tasks, or of all tasks."""
        config = self.config
        return EvaluatorSpec(
            tasks=games(self.tasks, replace(config.atari, one_life=False)),
            played=tuple(index for index, task in enumerate(self.tasks) if benchmark in ("", task.benchmark)),
            episodes=config.evaluation.episodes,
            observation_size=self.observation_size,
            action_size=self.action_size,
            seed=config.seed,
            acting=acting(self.networks),
            backend=config.actors.backend,
            threads=config.actors.threads,
        )


def make_plan(config: Config) -> Plan:
    """Return a run's plan. Raises UnknownNameError for unknown tasks and ValueError for limits that would deadlock."""
    tasks = configured_tasks(resolve(config.tasks), config)
    learner, replay = config.learner, config.replay
    samples_per_step = learner.updates_per_step * learner.batch_size
    copies = most_copies(config, tasks)
    ahead = -(-max_ahead(config, copies) // replay.shards)
    least_ahead = math.ceil(learner.batch_size / samples_per_step)
    privileged = tuple(task.privileged_size for task in tasks)
    shards = []
    for index in range(replay.shards):
        storage = StorageSpec(
            tasks=tuple(task.name for task in tasks),
            observation_shapes=tuple(row_shape(task) for task in tasks),
            action_size=max(task.action_size for task in tasks),
            capacity=(share(replay.capacity, index, replay.shards),) * len(tasks),
            segment_length=replay.segment_length,
            push_rows=push_rows(config, copies, stack_of(tasks)),
            dtype=tasks[0].observation_dtype if tasks[0].image else replay.observation_dtype,
            stack=stack_of(tasks),
            n_step=learner.n_step,
            discount=learner.discount,
            privileged=privileged if any(privileged) else (),
            demonstration_share=replay.demonstration_share,
            weights=tuple(replay.task_weights.get(task.name, 1.0) for task in tasks) if replay.task_weights else (),
        )
        limit = RateLimit(
            samples_per_step=samples_per_step,
            batch_size=learner.batch_size,
            warmup=share(replay.warmup, index, replay.shards),
            max_ahead=max(ahead, least_ahead),
            budget=share(config.steps, index, replay.shards),
            offline=share(learner.offline_updates, index, replay.shards),
        )
        shards.append(
            ShardSpec(
                index=index,
                storage=storage,
                limit=limit,
                seed=config.seed * 1009 + index,
                shards=replay.shards,
                demonstrations=sources(replay.demonstrations, tasks),
            )
        )
    total = sum(shard.limit.total_batches for shard in shards)
    return Plan(config=config, tasks=tasks, shards=tuple(shards), total_updates=total)


def sources(demonstrations: Sequence[str], tasks: Sequence[Task]) -> tuple[Source, ...]:
    """Return the sources of demonstrations that are given as PATH, for a single task, or as TASK=PATH. Raises
    ValueError for others."""
    found, names = [], [task.name for task in tasks]
    for given in demonstrations:
        name, mark, path = given.partition("=")
        if not mark:
            name, path = names[0], given
            if len(tasks) > 1:
                raise ValueError(f"{given} names no task: with several tasks give it as TASK=PATH")
        if name not in names:
            raise ValueError(f"{name!r} is not a task of this run; {nearest(name, names)}")
        task = tasks[names.index(name)]
        found.append(
            Source(
                task=names.index(name),
                path=path,
                keys=tuple(key for key, _ in task.observation_keys),
                observed=math.prod(task.observation_shape),
                acted=task.action_size,
            )
        )
    return tuple(found)


def part_of(actors: ActorsConfig, benchmark: str) -> ActorsConfig:
    """Return the configuration of a benchmark's actors, with the values that `actors.of` has for this benchmark."""
    changes: dict[str, Any] = {}
    for name, value in actors.of.items():
        of, field = option_of(name)
        if of == benchmark:
            changes[field] = type(getattr(actors, field))(value)
    return replace(actors, of={}, **changes)


def option_of(name: str) -> tuple[str, str]:
    """Return the benchmark and the field of a name in `actors.of`: dmc.action-repeat -> (dmc, action_repeat)."""
    benchmark, _, field = name.partition(".")
    return benchmark, field.replace("-", "_")


def most_copies(config: Config, tasks: Sequence[Task]) -> int:
    """Return the most copies of a task that an actor steps."""
    if config.execution == "serial":
        return config.actors.copies
    return max(part_of(config.actors, task.benchmark).copies for task in tasks)


def push_rows(config: Config, copies: int, stack: int) -> int:
    """Return the most rows of a task that an actor pushes at once.

    Every step may end an episode and then takes a second row. Before these rows are the older frames of the first
    stack."""
    return copies * (2 * config.replay.segment_length + stack)


def configured_tasks(tasks: Sequence[Task], config: Config) -> tuple[Task, ...]:
    """Return the tasks with the configured options of Atari and MetaWorld, privileged observations and repeats."""
    found = []
    for task in games(tasks, config.atari):
        part = part_of(config.actors, task.benchmark)
        if task.benchmark in OPEN:
            task = task.with_privileged(part.privileged_keys)
        if not config.learner.privileged:
            task = task.unprivileged()
        if task.benchmark == "metaworld" and config.metaworld.goals == "frozen":
            task = replace(task, fixed_start=copy_seed(config.seed, EVALUATION_STREAM, 0))
        found.append(task.repeated(part.action_repeat))
    return tuple(found)


def games(tasks: Sequence[Task], atari: AtariConfig) -> tuple[Task, ...]:
    """Return the tasks with the configured options of Atari."""
    return tuple(configured(task, **vars(atari)) if task.benchmark == "atari" else task for task in tasks)


def stack_of(tasks: Sequence[Task]) -> int:
    """Return the number of frames in an observation; replay keeps each frame once. 1 where there are no images."""
    return tasks[0].image[0] if tasks[0].image else 1


def row_shape(task: Task) -> tuple[int, ...]:
    """Return the shape of the part of an observation that a row of replay holds."""
    return task.image[1:] if task.image and task.image[0] > 1 else task.observation_shape


def max_ahead(config: Config, copies: int) -> int:
    """Return the environment steps by which acting may be ahead of learning; by default two pushes of an actor."""
    return config.replay.max_ahead or 2 * config.replay.segment_length * copies


def actor_counts(config: Config, tasks: Sequence[Task], cores: int = 0) -> dict[str, int]:
    """Return the number of actors of every benchmark: as configured, or one a core, divided in proportion to tasks.

    `cores` of 0 means all cores of this machine but one for the learner."""
    sizes = Counter(task.benchmark for task in tasks)
    if config.execution == "serial":
        return {tasks[0].benchmark: 1}
    cores = cores or max(1, (os.cpu_count() or 1) - 1)
    found = {}
    for benchmark, size in sizes.items():
        share_of_cores = max(1, round(cores * size / len(tasks)))
        found[benchmark] = part_of(config.actors, benchmark).count or min(size, share_of_cores)
    return found


def learner_threads(config: Config, cores: int = 0) -> int:
    """Return the most CPU threads of each of the learner's ranks. `cores` of 0 means the cores of this machine."""
    return config.learner.threads or max(1, (cores or os.cpu_count() or 1) // config.learner.ranks)
