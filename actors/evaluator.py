"""Runs whole episodes with the deterministic policy, on environments of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from actors.actor import place, random_actions, room
from actors.benchmarks.benchmark import Task
from actors.copies import Copies, Played
from actors.environments import copy_seed
from actors.policies.policy import make_policy
from learner.agents.acting import Acting
from replay.policy_store import PolicyMessage

EVALUATION_STREAM = 2046  # no actor reaches this incarnation
# Policies get a multiple of this number of rows. BLAS rounds the last rows of a product differently if they do not fill
# a tile; an episode would then depend on how many others are played with it.
ROWS = 16


@dataclass(frozen=True, kw_only=True)
class EvaluatorSpec:
    """Settings of an evaluator, which plays `episodes` episodes of each task whose index is in `played`."""

    tasks: tuple[Task, ...]
    played: tuple[int, ...]
    episodes: int
    observation_size: int
    action_size: int
    seed: int
    acting: Acting
    backend: str = "envpool"
    threads: int = 1


class Evaluation(NamedTuple):
    """Results by task name, one entry an episode. `version` is the policy's, -1 for the random policy."""

    returns: dict[str, list[float]]
    lengths: dict[str, list[int]]
    successes: dict[str, list[bool]]
    version: int


class Abandoned(Exception):
    """An evaluation was asked to stop."""


def merged(parts: Sequence[Evaluation]) -> Evaluation:
    """Merge the results of several evaluators that played different tasks with the same policy."""
    return Evaluation(
        {name: found for part in parts for name, found in part.returns.items()},
        {name: found for part in parts for name, found in part.lengths.items()},
        {name: found for part in parts for name, found in part.successes.items()},
        parts[0].version,
    )


class Evaluator:
    """Plays every episode in its own copy, several copies at the same time. An episode depends only on its number,
    which determines its seed, and not on the episodes that are played with it. Simulators that take one seed for all
    copies are an exception.

    A bad number in a reward or an observation, as `door` defines it, ends the episode, and its return is NaN.
    """

    def __init__(self, spec: EvaluatorSpec) -> None:
        self.spec = spec
        self.copies = Copies(spec.backend, spec.threads)

    def evaluate(
        self, message: PolicyMessage | None, number: int, stopped: Callable[[], bool] = lambda: False
    ) -> Evaluation:
        """Play with tanh of the policy's mean, or the best discrete action. Without a message, play uniformly at random
        (the baseline).

        `number` counts the evaluations of the run; each begins from different initial states. `stopped` is called
        before every step. Raises Abandoned when it returns True.
        """
        spec = self.spec
        found = {task: Played(spec.episodes) for task in spec.played}
        todo = [(task, episode) for task in spec.played for episode in range(spec.episodes)]
        try:
            while todo:
                self.copies.making = True
                todo = self._make(todo, number, stopped)
                ask(stopped)
                todo = self._play(found, message, number, stopped) + todo
                self.copies.close()
        finally:
            self.copies.close()
        by_name = {spec.tasks[task].name: played for task, played in found.items()}
        return Evaluation(
            {name: played.returns.tolist() for name, played in by_name.items()},
            {name: played.lengths.tolist() for name, played in by_name.items()},
            {name: played.successes.tolist() for name, played in by_name.items()},
            -1 if message is None else message.version,
        )

    def _make(self, todo: list[tuple[int, int]], number: int, stopped: Callable[[], bool]) -> list[tuple[int, int]]:
        """Make copies for the first of these (task, episode), as many as there is room for. Return the other pairs."""
        spec = self.spec
        first = number * len(spec.tasks) * spec.episodes % (1 << 19)
        while todo:
            ask(stopped)
            task = todo[0][0]
            left = sum(other == task for other, _ in todo)
            count = self.copies.fitting(task, left, spec.tasks[task].benchmark == "vector")
            if not count:
                break
            episodes = [episode for other, episode in todo if other == task][:count]
            seeds = [
                copy_seed(spec.seed, EVALUATION_STREAM, first + task * spec.episodes + episode) for episode in episodes
            ]
            self.copies.make(task, spec.tasks[task], episodes, seeds)
            todo = [one for one in todo if one[0] != task or one[1] not in episodes]
        return todo

    def _play(
        self, found: dict[int, Played], message: PolicyMessage | None, number: int, stopped: Callable[[], bool]
    ) -> list[tuple[int, int]]:
        """Play an episode in every copy. Return the (task, episode) of copies that had to be given up."""
        spec, pools = self.spec, self.copies.pools
        rows = np.concatenate([np.full(len(pool.episodes), pool.index) for pool in pools])
        filled = np.concatenate([rows, np.full(-len(rows) % ROWS, rows[0])])
        num_actions = np.array([spec.tasks[task].num_actions for task in filled])
        policy = None if message is None else make_policy(spec.acting, message, filled)
        observations = room(spec.tasks, len(filled), spec.observation_size)
        draws = [
            np.random.default_rng([spec.seed, EVALUATION_STREAM, number, pool.index, episode])
            for pool in pools
            for episode in pool.episodes
        ]
        put_off: list[tuple[int, int]] = []
        for pool in pools:
            pool.begin(found[pool.index])
        while active := [pool for pool in pools if pool.playing.any()]:
            ask(stopped)
            if policy is None:
                each = [random_actions(rng, num_actions[i : i + 1], spec.action_size) for i, rng in enumerate(draws)]
                actions = np.concatenate(each)
            else:
                for pool in active:
                    place(pool.inputs, pool.environment.task, observations, pool.rows)
                actions = policy.act(observations)
            if self.copies.making:
                self.copies.begin()  # after the policy's first call, which allocates its memory
            for pool in active:
                pool.environment.send(actions[pool.rows, : pool.environment.task.action_size])
            for pool in active:
                ask(stopped)
                pool.take(pool.environment.recv(), found[pool.index])
            put_off += self.copies.give_way(found)
        return put_off


def ask(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise Abandoned
