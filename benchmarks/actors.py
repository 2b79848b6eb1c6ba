"""What an actor costs on top of its environments.

Cases "<task>": environment steps/s of the whole actor loop (policy in numpy, recording, segments, pushes into a real
shard in this process) against raw envpool stepped with random actions generated beforehand: the same pool settings and
seeds, the same number of steps, the same process, alternately. The policy is one whose actions are close to uniform,
because physics itself is slower or faster under other actions: dogs that lie still have more contacts to resolve.

Cases "<task>-same-actions": the raw pool repeats the actions that the actor just took, so nothing but the actor's own
overhead is left.

Cases "<task>-private-memory": memory that is an actor process's own (USS), beyond that of a bare Python process which
holds the same pool and stepped it as often; theirs is the limit of 100 MB.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import psutil
import ray
import torch
import tyro

from actors.actor import Actor, ActorSpec
from actors.catalogue import Task
from actors.dmc import envpool_id
from actors.environments import copy_seed
from actors.envpool_backend import EnvpoolEnvironment
from actors.ray_actor import ACTOR_ENVIRONMENT, start_actor
from benchmarks.report import alternate, compare
from cluster.config import ActorsConfig, Config, ReplayConfig
from cluster.local_ray import local_ray
from cluster.plan import Plan, make_plan
from learner import publishing
from learner.networks import Critic, NetworkSpec, Policy
from replay.client import LocalShard, Writer
from replay.policy_store import PolicyMessage, PolicyStore
from replay.ray_shard import RayShard, start_shard
from replay.shard import Shard

TASKS = ("dog-run", "humanoid-run", "cartpole-swingup")
NUM_TASKS = 4  # of the run that the actor is part of: they decide the size of its policy's input
MEMORY_LIMIT_MB = 100.0
PUSHES = 3  # before memory is measured

# A process with nothing but the pool. It holds it until its standard input is closed.
BARE_POOL = """
import json, sys
import envpool, numpy as np
name, seeds, threads, limit, steps = json.loads(sys.argv[1])
pool = envpool.make(name, env_type="gymnasium", num_envs=len(seeds), seed=seeds, num_threads=min(threads, len(seeds)),
                    max_episode_steps=limit)
space, rng = pool.action_space, np.random.default_rng(0)
pool.reset()
for _ in range(steps):
    pool.step(rng.uniform(space.low, space.high, (len(seeds), *space.shape)).astype(space.dtype))
print("ready", flush=True)
sys.stdin.read()
"""


def main(
    tasks: tuple[str, ...] = TASKS,
    copies: int = 16,
    threads: int = 1,
    seconds: float = 2.0,
    repeats: int = 9,
    memory_repeats: int = 1,
) -> None:
    """Actor loop against raw envpool, and the private memory of an actor process.

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
    """A run of one task whose shard takes whatever is pushed."""
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
    spec = plan.actor(0)
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

    ours(), theirs()  # the first touches of memory
    case = plan.tasks[0].short_name + ("-same-actions" if same_actions else "")
    result = compare("actors", case, "environment steps/s", *alternate(ours, theirs, repeats))
    report = actor.report()
    if report.policy_version < 0 or report.writer["refusals"]:
        raise RuntimeError(f"the actor did not act freely with a policy: {report}")
    total = sum(report.seconds.values())
    shares = {name: part / total for name, part in report.seconds.items()}
    result.print(copies=spec.copies, threads=spec.threads, shares=shares)
    actor.close()
    raw.close()


class ListeningEnvironment(EnvpoolEnvironment):
    """Keeps the actions that it was sent."""

    def __init__(self, task: Task, seeds: Sequence[int], threads: int) -> None:
        super().__init__(task, seeds, threads)
        self.taken: list[np.ndarray] = []

    def send(self, actions: np.ndarray) -> None:
        self.taken.append(actions)
        super().send(actions)


def listening_environment(spec: ActorSpec) -> ListeningEnvironment:
    """The actor's pool, with the settings and seeds that it would have in a run."""
    ((_, task),) = spec.tasks
    seeds = [copy_seed(spec.seed, spec.incarnation, spec.first_copy + copy) for copy in range(spec.copies)]
    return ListeningEnvironment(task, seeds, spec.threads)


def uniform_policy(plan: Plan) -> PolicyMessage:
    """A policy of a run with NUM_TASKS tasks that acts close to uniformly, at the full cost of its network."""
    # Of the critic only the task embeddings are published, so its width does not matter.
    networks = NetworkSpec(plan.observation_size, plan.action_size, NUM_TASKS, width=8)
    policy = Policy(networks)
    with torch.no_grad():
        for parameter in (*policy.mean.parameters(), *policy.log_std.parameters()):
            parameter.zero_()
        # tanh of a normal draw of deviation 0.88 is all but uniform; log 0.88 = -4 + 6 tanh(0.767), spec section 1.
        policy.log_std.bias.fill_(0.767)
    return publishing.message(policy, Critic(networks), version=0)


def compare_memory(plan: Plan, repeats: int) -> None:
    spec = plan.actor(0)
    actor_mb, bare_mb = [], []
    for _ in range(repeats):
        megabytes, steps = memory_of_actor(plan)
        actor_mb.append(megabytes)
        bare_mb.append(memory_of_bare_pool(spec, steps))
    case = f"{plan.tasks[0].short_name}-private-memory"
    ours = [actor - bare for actor, bare in zip(actor_mb, bare_mb, strict=True)]
    result = compare("actors", case, "MB", ours, [MEMORY_LIMIT_MB] * repeats, less_is_better=True)
    # A pool of heavy tasks differs by tens of MB from one process to the next, and with it the difference.
    result.print(actor_mb=actor_mb, bare_mb=bare_mb, copies=spec.copies, threads=spec.threads)


def memory_of_actor(plan: Plan) -> tuple[float, int]:
    """USS in MB of a Ray actor process that has pushed and taken over policies, and the steps its pool has made."""
    shard = start_shard(plan.shards[0], f"shard-{time.time_ns()}")  # a killed one may keep its name for a moment
    store = ray.remote(PolicyStore).options(num_cpus=0, max_concurrency=2).remote(ray.put)
    actor = start_actor(plan.actor(0), [RayShard(shard)], store, cpus=0)
    message, versions = uniform_policy(plan), itertools.count()
    ray.get(store.put.remote(message))
    pid = ray.get(actor.__ray_call__.remote(lambda process: os.getpid()))
    ray.get(actor.start.remote())
    while ray.get(actor.report.remote()).writer["pushes"] < PUSHES:
        ray.get(store.put.remote(message._replace(version=next(versions))))
        time.sleep(0.1)
    ray.get(actor.stop.remote())
    report = ray.get(actor.report.remote())
    if report.policy_version < 0:
        raise RuntimeError("the actor has taken over no policy")
    megabytes = private_megabytes(pid)
    for handle in (actor, shard, store):
        ray.kill(handle)
    return megabytes, report.iterations


def memory_of_bare_pool(spec: ActorSpec, steps: int) -> float:
    """USS in MB of a Python process that holds the actor's pool and nothing else, after `steps` steps."""
    ((_, task),) = spec.tasks
    settings = [envpool_id(task), list(range(spec.copies)), spec.threads, task.episode_limit, steps]
    command = [sys.executable, "-c", BARE_POOL, json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("the bare pool failed")
        # Leaving the block closes its standard input, which ends it.
        return private_megabytes(process.pid)


def private_megabytes(pid: int) -> float:
    return float(psutil.Process(pid).memory_full_info().uss) / 1e6


if __name__ == "__main__":
    tyro.cli(main)
