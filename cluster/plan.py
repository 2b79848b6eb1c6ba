"""Derives from a configuration what each part is made from. Pure arithmetic: imports neither torch nor Ray."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields

from actors.actor import ActorSpec
from actors.catalogue import Task, resolve
from actors.evaluator import EvaluatorSpec
from cluster.config import Config
from learner.footprint import NetworkSpec, critic_parameters, footprint
from replay.rate_limiter import RateLimit
from replay.shard import ShardSpec, share
from replay.storage import StorageSpec

SHARD_FROM = 30_000_000  # parameters of a critic: below, to gather its layers takes longer than it saves


@dataclass(frozen=True)
class Plan:
    """Everything about a run that follows from its configuration."""

    config: Config
    tasks: tuple[Task, ...]
    shards: tuple[ShardSpec, ...]
    actor_count: int
    total_updates: int

    @property
    def observation_size(self) -> int:
        return max(task.observation_size for task in self.tasks)

    @property
    def action_size(self) -> int:
        return max(task.action_size for task in self.tasks)

    @property
    def networks(self) -> NetworkSpec:
        learner = vars(self.config.learner)
        shape = {field.name: learner[field.name] for field in fields(NetworkSpec) if field.name in learner}
        return NetworkSpec(self.observation_size, self.action_size, len(self.tasks), **shape)

    @property
    def is_sharded(self) -> bool:
        """Whether each of the learner's ranks holds a part of the critic, not all of it."""
        config = self.config.learner
        if config.ranks == 1 or config.sharding == "replicate":
            return False
        large = critic_parameters(self.networks) >= SHARD_FROM
        return config.sharding == "shard" or config.replicas > 1 or large

    @property
    def learner_bytes(self) -> dict[str, int]:
        """What each of the learner's ranks takes on a CPU, by purpose."""
        config = self.config.learner
        return footprint(
            self.networks,
            config.batch_size,
            config.batches_per_request,
            config.precision,
            config.ranks,
            self.is_sharded,
            config.replicas,
            "cpu",
        )

    @property
    def replay_bytes(self) -> int:
        return sum(shard.storage.nbytes for shard in self.shards)

    @property
    def samples_per_insert(self) -> float:
        """updates_per_step * batch_size / tasks."""
        learner = self.config.learner
        return learner.updates_per_step * learner.batch_size / len(self.tasks)

    def actor(self, index: int, incarnation: int = 0) -> ActorSpec:
        """The spec of actor `index` in its `incarnation`-th life."""
        config = self.config
        dealt = deal(len(self.tasks), self.actor_count)
        return ActorSpec(
            index,
            tuple((task, self.tasks[task]) for task in dealt[index]),
            config.actors.copies,
            sum(len(tasks) for tasks in dealt[:index]) * config.actors.copies,
            self.observation_size,
            self.action_size,
            config.replay.segment_length,
            config.learner.discount,
            config.seed,
            config.actors.backend,
            config.actors.threads,
            incarnation,
        )

    def evaluator(self) -> EvaluatorSpec:
        config = self.config
        return EvaluatorSpec(
            self.tasks,
            config.evaluation.episodes,
            self.observation_size,
            self.action_size,
            config.seed,
            config.actors.backend,
            config.actors.threads,
        )


def make_plan(config: Config) -> Plan:
    """Raises UnknownNameError for unknown tasks and ValueError for limits that would deadlock."""
    tasks = resolve(config.tasks)
    learner, replay = config.learner, config.replay
    samples_per_step = learner.updates_per_step * learner.batch_size
    ahead = -(-max_ahead(config) // replay.shards)
    least_ahead = math.ceil(learner.batch_size / samples_per_step)
    shards = []
    for index in range(replay.shards):
        storage = StorageSpec(
            tuple(task.name for task in tasks),
            tuple((task.observation_size,) for task in tasks),
            max(task.action_size for task in tasks),
            (share(replay.capacity, index, replay.shards),) * len(tasks),
            replay.segment_length,
            push_rows(config),
            replay.observation_dtype,
            n_step=learner.n_step,
            discount=learner.discount,
            weights=tuple(replay.task_weights.get(task.name, 1.0) for task in tasks) if replay.task_weights else (),
        )
        limit = RateLimit(
            samples_per_step,
            learner.batch_size,
            share(replay.warmup, index, replay.shards),
            max(ahead, least_ahead),
            share(config.steps, index, replay.shards),
        )
        shards.append(ShardSpec(index, storage, limit, config.seed * 1009 + index, replay.shards))
    total = sum(shard.limit.total_batches for shard in shards)
    return Plan(config, tasks, tuple(shards), actor_count(config, len(tasks)), total)


def push_rows(config: Config) -> int:
    """The most rows of a task that an actor pushes at once: every step may end an episode and take a second row."""
    return config.actors.copies * (2 * config.replay.segment_length + 1)


def max_ahead(config: Config) -> int:
    """Environment steps that acting may be ahead; by default two pushes of an actor."""
    return config.replay.max_ahead or 2 * config.replay.segment_length * config.actors.copies


def actor_count(config: Config, tasks: int) -> int:
    """One actor in serial execution; else as configured, or a core each but one for the learner."""
    if config.execution == "serial":
        return 1
    return config.actors.count or max(1, min(tasks, (os.cpu_count() or 1) - 1))


def deal(tasks: int, actors: int) -> list[tuple[int, ...]]:
    """Task indices of every actor, so that all tasks are served by equally many copies.

    With fewer actors than tasks every task is in exactly one actor. With more, every actor has one task, and the actors
    of a task differ by at most one in number; the limiter then holds the tasks to the same number of steps.
    """
    if actors >= tasks:
        return [(actor % tasks,) for actor in range(actors)]
    return [tuple(range(actor, tasks, actors)) for actor in range(actors)]


def learner_threads(config: Config) -> int:
    """CPU threads of each of the learner's ranks."""
    return config.learner.threads or max(1, (os.cpu_count() or 1) // config.learner.ranks)
