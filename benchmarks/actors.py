"""Measures what an actor costs on top of its environments.

Cases "<task>": environment steps/s of the whole actor loop (policy in numpy, recording, segments, pushes into a real
shard in this process) against raw envpool stepped with random actions generated beforehand: the same pool settings and
seeds, the same number of steps, the same process, alternately. The policy's actions are close to uniform too, because
physics itself is slower or faster under other actions: dogs that lie still have more contacts to resolve.

Cases "<task>-same-actions": the raw pool repeats the actions that the actor just took, so only the actor's own overhead
is left.

Cases "<task>-private-memory": private memory (USS) of an actor process, without the memory that loading envpool and
making its pool took; theirs is the limit of 100 MB.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import psutil
import ray
import torch
import tyro

from actors import process as ray_actor
from actors.actor import Actor, ActorSpec, make_environments
from actors.backends.envpool import EnvpoolEnvironment
from actors.benchmarks.benchmark import Task
from actors.environments import Environment, copy_seed
from actors.process import ACTOR_ENVIRONMENT, ActorProcess
from benchmarks.report import alternate, compare
from cluster.backend.local_ray import local_ray
from cluster.config.schema import ActorsConfig, Config, ReplayConfig
from cluster.plan.plan import Plan, make_plan
from learner.agents.catalogue import acting
from learner.networks.modules import Critic, Policy
from learner.networks.spec import NetworkSpec
from learner.state.publishing import Outgoing
from replay.client.handle import LocalShard
from replay.client.writer import Writer
from replay.policy_store import PolicyMessage, PolicyStore
from replay.process import RayShard, start_shard
from replay.shard import Shard

TASKS = ("dog-run", "humanoid-run", "cartpole-swingup")
NUM_TASKS = 4  # tasks of the actor's run: they decide the size of its policy's input
MEMORY_LIMIT_MB = 100.0
PUSHES = 3  # pushes before memory is measured


def main(
    tasks: tuple[str, ...] = TASKS,
    copies: int = 16,
    threads: int = 1,
    seconds: float = 2.0,
    repeats: int = 9,
    memory_repeats: int = 3,
) -> None:
    """Compare the actor loop with raw envpool, and the private memory of an actor process with its limit.

    Args:
        tasks: dm_control tasks, such as dog-run.
        copies: copies of the task in an actor.
        threads: threads of the environment pool.
        seconds: length of a repeat of the actor; the raw pool makes as many steps.
        repeats: repeats of each side.
        memory_repeats: measurements of private memory, in a local Ray; 0 for none.
    """
    if not ACTOR_ENVIRONMENT.items() <= os.environ.items():
        # numpy reads its number of threads when it is imported: start anew in the environment that actors get.
        os.execve(
            sys.executable, [sys.executable, "-m", "benchmarks.actors", *sys.argv[1:]], os.environ | ACTOR_ENVIRONMENT
        )
    plans = [plan_of(task, copies, threads) for task in tasks]
    for plan in plans:
        for same_actions in (False, True):
            compare_speed(plan, same_actions, seconds, repeats)
    if memory_repeats:
        with (
            # Below /tmp, because the sockets in it may have paths of 107 characters at most.
            tempfile.TemporaryDirectory(prefix="brc-", dir="/tmp", ignore_cleanup_errors=True) as folder,
            local_ray(plan_of(tasks[0], copies, threads, folder)),
        ):
            for plan in plans:
                compare_memory(plan, memory_repeats)


def plan_of(task: str, copies: int, threads: int, ray_folder: str = "") -> Plan:
    """Return the plan of a run of one task whose shard accepts every push."""
    return make_plan(
        Config(
            tasks=(f"dmc/{task}",),
            steps=10**12,
            ray_folder=ray_folder,
            actors=ActorsConfig(count=1, copies=copies, threads=threads),
            # A small ring is soon full: then every push overwrites, as in a long run.
            replay=ReplayConfig(capacity=20_000, max_ahead=10**12),
        )
    )


def compare_speed(plan: Plan, same_actions: bool, seconds: float, repeats: int) -> None:
    spec = actor_spec(plan)
    handle = LocalShard(Shard(plan.shards[0]))
    store = PolicyStore()
    store.put(uniform_policy(plan))
    environment, raw = listening_environment(spec), listening_environment(spec)
    actor = Actor(spec, [environment], Writer(spec.writer_name, [handle]), store)
    actor.pull()
    raw.reset()
    shape = (256, spec.copies, plan.action_size)
    random = raw.scale(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))

    def ours() -> float:
        environment.taken.clear()
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            # Whole segments, so that every repeat holds its share of pushes.
            for _ in range(spec.segment_length):
                actor.step()
        return len(environment.taken) * spec.copies / elapsed

    def theirs() -> float:
        taken = environment.taken
        actions = [raw.scale(sent) if same_actions else random[step % len(random)] for step, sent in enumerate(taken)]
        started = time.perf_counter()
        for action in actions:
            raw.pool.step(action)
        return len(actions) * spec.copies / (time.perf_counter() - started)

    ours(), theirs()  # warm-up: memory is touched for the first time
    case = plan.tasks[0].short_name + ("-same-actions" if same_actions else "")
    result = compare("actors", case, "environment steps/s", *alternate(ours, theirs, repeats))
    report = actor.report()
    if report.policy_version < 0 or report.writer.refusals:
        raise RuntimeError(f"the actor did not act freely with a policy: {report}")
    total = sum(report.seconds.values())
    shares = {name: part / total for name, part in report.seconds.items()}
    result.print(copies=spec.copies, threads=spec.threads, shares=shares)
    actor.close()
    raw.close()


class ListeningEnvironment(EnvpoolEnvironment):
    """An environment that keeps the actions sent to it."""

    def __init__(self, task: Task, seeds: Sequence[int], threads: int) -> None:
        super().__init__(task, seeds, threads)
        self.taken: list[np.ndarray] = []

    def send(self, actions: np.ndarray) -> None:
        self.taken.append(actions)
        super().send(actions)


def listening_environment(spec: ActorSpec) -> ListeningEnvironment:
    """Return the actor's pool, with the settings and seeds that it would have in a run."""
    ((_, task),) = spec.tasks
    seeds = [copy_seed(spec.seed, spec.incarnation, spec.first_copy + copy) for copy in range(spec.copies)]
    return ListeningEnvironment(task, seeds, spec.threads)


def networks_of(plan: Plan) -> NetworkSpec:
    """Return the networks of a run with NUM_TASKS tasks like the plan's. The critic's width does not matter: only its
    task embeddings are published."""
    return NetworkSpec(
        observation_size=plan.observation_size, action_size=plan.action_size, num_tasks=NUM_TASKS, width=8
    )


def actor_spec(plan: Plan) -> ActorSpec:
    """Return the spec of the plan's only actor, as a part of a run with NUM_TASKS tasks."""
    return replace(plan.actor(plan.everything()), acting=acting(networks_of(plan)))


def uniform_policy(plan: Plan) -> PolicyMessage:
    """Return a policy of a run with NUM_TASKS tasks that acts nearly uniformly, at the full cost of its network."""
    networks = networks_of(plan)
    policy = Policy(networks)
    with torch.no_grad():
        for name in ("mean.weight", "mean.bias", "log_std.weight"):
            policy.get_parameter(name).zero_()
        # tanh of a normal draw of deviation 0.88 is nearly uniform. `registry.policy` turns 0.767 into log 0.88:
        # -4 + 6 tanh(0.767).
        policy.get_parameter("log_std.bias").fill_(0.767)
    return Outgoing(policy, Critic(networks).embedding_table(), 0).message()


def compare_memory(plan: Plan, repeats: int) -> None:
    ours, pools_mb = zip(*(memory_of_actor(plan) for _ in range(repeats)), strict=True)
    case = f"{plan.tasks[0].short_name}-private-memory"
    result = compare("actors", case, "MB", ours, [MEMORY_LIMIT_MB] * repeats, less_is_better=True)
    result.print(pools_mb=pools_mb, copies=plan.config.actors.copies, threads=plan.config.actors.threads)


class MeasuredActorProcess(ActorProcess):
    """The process of an actor that also measures the memory of its pools."""

    def build(self) -> None:
        def measured(spec: ActorSpec) -> list[Environment]:
            before = private_megabytes()
            made = make_environments(spec)
            self.pools_mb = private_megabytes() - before
            return made

        with patch.object(ray_actor, "make_environments", measured):
            super().build()

    def private_memory(self) -> tuple[float, float]:
        """Return the MB without its pools, and the MB that the pools took."""
        return private_megabytes() - self.pools_mb, self.pools_mb


def memory_of_actor(plan: Plan) -> tuple[float, float]:
    """Return the USS in MB of a Ray actor process that has pushed and got policies: without its pools, and of these."""
    shard = start_shard(plan.shards[0])
    store = ray.remote(PolicyStore).options(num_cpus=0, max_concurrency=2).remote(ray.put)
    process = ray.remote(MeasuredActorProcess).options(num_cpus=0, runtime_env={"env_vars": ACTOR_ENVIRONMENT})
    actor = process.remote(actor_spec(plan), [RayShard(shard)], store)
    message, versions = uniform_policy(plan), itertools.count()
    ray.get(store.put.remote(message))
    ray.get(actor.start.remote())
    while ray.get(actor.report.remote()).writer.pushes < PUSHES:
        ray.get(store.put.remote(message._replace(version=next(versions))))
        time.sleep(0.1)
    ray.get(actor.stop.remote())
    report = ray.get(actor.report.remote())
    if report.policy_version < 0:
        raise RuntimeError("the actor has taken over no policy")
    memory: tuple[float, float] = ray.get(actor.private_memory.remote())
    for handle in (actor, shard, store):
        ray.kill(handle)
    return memory


def private_megabytes() -> float:
    return float(psutil.Process().memory_full_info().uss) / 1e6


if __name__ == "__main__":
    tyro.cli(main)
