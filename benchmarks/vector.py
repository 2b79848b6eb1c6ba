"""Measures what an actor costs on top of a vectorised simulator.

Environment steps/s of the whole actor loop (policy, recording, segments, pushes into a real shard in this process)
against the simulator alone, which takes the actions that the actor has just taken: the same number of copies and steps,
the same process, alternately.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tyro

from actors.actor import Actor
from actors.backends.vector import VectorEnvironment, like
from actors.benchmarks.benchmark import Task
from actors.environments import copy_seed
from benchmarks.actors import actor_spec, uniform_policy
from benchmarks.report import alternate, compare
from cluster.config.schema import ActorsConfig, Config, ReplayConfig
from cluster.plan.plan import Plan, make_plan
from replay.client.handle import LocalShard
from replay.client.writer import Writer
from replay.policy_store import PolicyStore
from replay.shard import Shard

SEGMENT = 8


def main(
    task: str = "vector/examples.own_simulator:follow",
    copies: tuple[int, ...] = (1, 64, 1024, 4096),
    seconds: float = 2.0,
    repeats: int = 5,
) -> None:
    """Compare the actor loop with the simulator alone.

    Args:
        task: the simulator.
        copies: numbers of copies, each a case.
        seconds: length of a repeat of the actor; the simulator makes as many steps.
        repeats: repeats of each side.
    """
    for count in copies:
        measure(plan_of(task, count), seconds, repeats)


def plan_of(task: str, copies: int) -> Plan:
    """Return the plan of a run whose shard accepts every push."""
    replay = ReplayConfig(capacity=100_000, max_ahead=10**12, segment_length=SEGMENT)
    return make_plan(Config(tasks=(task,), steps=10**12, actors=ActorsConfig(count=1, copies=copies), replay=replay))


def measure(plan: Plan, seconds: float, repeats: int) -> None:
    spec = actor_spec(plan)
    store = PolicyStore()
    store.put(uniform_policy(plan))
    seeds = [copy_seed(spec.seed, spec.incarnation, spec.first_copy + copy) for copy in range(spec.copies)]
    environment, alone = ListeningSimulator(plan.tasks[0], seeds), VectorEnvironment(plan.tasks[0], seeds)
    actor = Actor(spec, [environment], Writer(spec.writer_name, [LocalShard(Shard(plan.shards[0]))]), store)
    actor.pull()
    alone.reset()
    sent = environment.heard

    def ours() -> float:
        sent.clear()
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            for _ in range(SEGMENT):  # whole segments, so that every repeat holds its share of pushes
                actor.step()
        return len(sent) * spec.copies / elapsed

    def theirs() -> float:
        """Return the steps/s of the simulator alone, which resets ended copies itself or, in mode DISABLED, is told."""
        started = time.perf_counter()
        for actions in sent:
            observed, _, terminated, truncated, _ = alone.environment.step(actions)
            over = np.asarray(terminated) | np.asarray(truncated)
            if alone.mode == "Disabled" and over.any():
                observed, _ = alone.environment.reset(options={"reset_mask": like(over, alone.sample)})
            np.asarray(observed)
        return len(sent) * spec.copies / (time.perf_counter() - started)

    ours(), theirs()  # warm-up
    result = compare(
        "vector", f"{plan.tasks[0].short_name}-{spec.copies}", "environment steps/s", *alternate(ours, theirs, repeats)
    )
    total = sum(actor.report().seconds.values())
    result.print(copies=spec.copies, shares={name: part / total for name, part in actor.report().seconds.items()})
    actor.close()
    alone.close()


class ListeningSimulator(VectorEnvironment):
    """A simulator that keeps the actions sent to it."""

    def __init__(self, task: Task, seeds: Sequence[int]) -> None:
        super().__init__(task, seeds)
        self.heard: list[Any] = []

    def send(self, actions: np.ndarray) -> None:
        super().send(actions)
        self.heard.append(self.sent)


if __name__ == "__main__":
    tyro.cli(main)
