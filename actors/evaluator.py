"""Runs whole episodes with the deterministic policy, on environments of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from actors.actor import make_policy, random_actions, room
from actors.catalogue import Task
from actors.environments import copy_seed, make_environment
from replay.policy_store import PolicyMessage

EVALUATION_STREAM = 2046  # no actor reaches this incarnation
MOST_COPIES = 64  # of all tasks together, at a time


@dataclass(frozen=True)
class EvaluatorSpec:
    """Evaluate some of a run's tasks, those with the indices `played`, `episodes` each, in as many copies."""

    tasks: tuple[Task, ...]
    played: tuple[int, ...]
    episodes: int
    observation_size: int
    action_size: int
    seed: int
    backend: str = "envpool"
    threads: int = 1
    most_actions: int = 0  # where they are discrete


class Evaluation(NamedTuple):
    """Results by task name; one entry an episode. `version` is that of the policy, -1 for the random one."""

    returns: dict[str, list[float]]
    lengths: dict[str, list[int]]
    successes: dict[str, list[bool]]
    version: int


def merged(parts: Sequence[Evaluation]) -> Evaluation:
    """Of several evaluators that played different tasks with the same policy."""
    return Evaluation(
        {name: found for part in parts for name, found in part.returns.items()},
        {name: found for part in parts for name, found in part.lengths.items()},
        {name: found for part in parts for name, found in part.successes.items()},
        parts[0].version,
    )


class Played(NamedTuple):
    """Episodes of one task, an entry each."""

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray


class Evaluator:
    """Copy i of a task plays exactly one episode an evaluation; later episodes of faster copies do not count."""

    def __init__(self, spec: EvaluatorSpec) -> None:
        self.spec = spec

    def evaluate(self, message: PolicyMessage | None, number: int) -> Evaluation:
        """Play with tanh of the policy's mean, or the best action; with None, uniformly at random (the baseline).

        `number` counts the evaluations of the run; each begins from initial states of its own. Tasks are played some
        at a time: a copy of some takes 90 MB.
        """
        tasks = self.spec.played
        at_once = max(1, MOST_COPIES // self.spec.episodes)
        played: list[Played] = []
        for begin in range(0, len(tasks), at_once):
            played += self._play(tasks[begin : begin + at_once], message, number)
        by_name = {self.spec.tasks[task].name: found for task, found in zip(tasks, played, strict=True)}
        return Evaluation(
            {name: found.returns.tolist() for name, found in by_name.items()},
            {name: found.lengths.tolist() for name, found in by_name.items()},
            {name: found.successes.tolist() for name, found in by_name.items()},
            -1 if message is None else message.version,
        )

    def _play(self, tasks: tuple[int, ...], message: PolicyMessage | None, number: int) -> list[Played]:
        """Some of the tasks, given by their indices, all copies of all of them together."""
        spec, episodes = self.spec, self.spec.episodes
        rows = np.repeat(tasks, episodes)
        first = number * len(spec.tasks) * episodes % (1 << 19)
        rng = np.random.default_rng([spec.seed, EVALUATION_STREAM, number, tasks[0]])
        pools = []
        for task in tasks:
            base = first + task * episodes
            seeds = [copy_seed(spec.seed, EVALUATION_STREAM, base + copy) for copy in range(episodes)]
            pools.append(make_environment(spec.backend, spec.tasks[task], seeds, spec.threads))
        inputs = [pool.reset() for pool in pools]
        num_actions = np.repeat([spec.tasks[task].num_actions for task in tasks], episodes)
        policy = None if message is None else make_policy(message, rows, num_actions, spec.most_actions)
        observations = room(spec.tasks, len(rows), spec.observation_size)
        returns, lengths = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
        successes, playing = np.zeros(len(rows), bool), np.ones(len(rows), bool)
        places = [slice(p * episodes, (p + 1) * episodes) for p in range(len(pools))]
        while playing.any():
            active = [i for i, place in enumerate(places) if playing[place].any()]
            if policy is None:
                actions = random_actions(rng, num_actions, spec.action_size)
            else:
                for i in active:
                    observations[places[i], : inputs[i].shape[1]] = inputs[i]
                actions = policy.act(observations)
            for i in active:
                pools[i].send(actions[places[i], : pools[i].task.action_size])
            for i in active:
                step, place = pools[i].recv(), places[i]
                inputs[i] = step.next_inputs
                counted = playing[place]
                returns[place] += np.where(counted, step.rewards, 0.0)
                lengths[place] += counted
                successes[place] |= counted & step.successes
                playing[place] &= ~(step.terminated | step.truncated)
        for pool in pools:
            pool.close()
        return [Played(returns[place], lengths[place], successes[place]) for place in places]
