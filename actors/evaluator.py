"""Runs whole episodes with the deterministic policy, on environments of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from actors.catalogue import Task
from actors.environments import copy_seed, make_environment
from actors.policy import NumpyPolicy
from replay.policy_store import PolicyMessage

EVALUATION_STREAM = 2046  # no actor reaches this incarnation


@dataclass(frozen=True)
class EvaluatorSpec:
    """Evaluate all tasks, `episodes` each, in as many copies."""

    tasks: tuple[Task, ...]
    episodes: int
    observation_size: int
    action_size: int
    seed: int
    backend: str = "envpool"
    threads: int = 1


class Evaluation(NamedTuple):
    """Results by task name; one entry an episode. `version` is that of the policy, -1 for the random one."""

    returns: dict[str, list[float]]
    lengths: dict[str, list[int]]
    successes: dict[str, list[bool]]
    version: int


class Evaluator:
    """Copy i of a task plays exactly one episode an evaluation; later episodes of faster copies do not count."""

    def __init__(self, spec: EvaluatorSpec) -> None:
        self.spec = spec
        self.row_tasks = np.repeat(np.arange(len(spec.tasks)), spec.episodes)

    def evaluate(self, message: PolicyMessage | None, number: int) -> Evaluation:
        """Play with tanh of the policy's mean; with None, uniformly at random (the baseline of a run).

        `number` counts the evaluations of the run; each begins from initial states of its own.
        """
        spec, rows = self.spec, self.row_tasks
        first = number * len(rows) % (1 << 19)
        rng = np.random.default_rng([spec.seed, EVALUATION_STREAM, number])
        pools = []
        for position, task in enumerate(spec.tasks):
            base = first + position * spec.episodes
            seeds = [copy_seed(spec.seed, EVALUATION_STREAM, base + copy) for copy in range(spec.episodes)]
            pools.append(make_environment(spec.backend, task, seeds, spec.threads))
        inputs = [pool.reset() for pool in pools]
        policy = None if message is None else NumpyPolicy(message, rows)
        observations = np.zeros((len(rows), spec.observation_size), np.float32)
        returns, lengths = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
        successes, playing = np.zeros(len(rows), bool), np.ones(len(rows), bool)
        places = [slice(p * spec.episodes, (p + 1) * spec.episodes) for p in range(len(pools))]
        while playing.any():
            active = [i for i, place in enumerate(places) if playing[place].any()]
            if policy is None:
                actions = rng.uniform(-1, 1, (len(rows), spec.action_size)).astype(np.float32)
            else:
                for i in active:
                    observations[places[i], : inputs[i].shape[1]] = inputs[i]
                actions = policy.act(observations, noise=None)
            for i in active:
                pools[i].send(actions[places[i], : spec.tasks[i].action_size])
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
        return Evaluation(
            {task.name: returns[place].tolist() for task, place in zip(spec.tasks, places, strict=True)},
            {task.name: lengths[place].tolist() for task, place in zip(spec.tasks, places, strict=True)},
            {task.name: successes[place].tolist() for task, place in zip(spec.tasks, places, strict=True)},
            -1 if message is None else message.version,
        )
