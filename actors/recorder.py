"""Records episodes of a task with a policy, as demonstrations for other runs."""

from __future__ import annotations

import numpy as np

from actors.actor import place, room
from actors.closing import close_in_time
from actors.environments import copy_seed, make_environment
from actors.evaluator import EVALUATION_STREAM, ROWS, EvaluatorSpec
from actors.policies.policy import make_policy
from replay.demonstrations import Episode
from replay.policy_store import PolicyMessage
from replay.store.soundness import all_numbers

MOST_COPIES = 16
MOST_BAD = 10  # bad episodes for each that is wanted


def record(
    spec: EvaluatorSpec, task: int, message: PolicyMessage, episodes: int, first: int = 0
) -> tuple[list[Episode], list[bool]]:
    """Play `episodes` episodes of a task with the deterministic policy. Return them, and whether each had success.

    Episodes with a bad number (actors.door) are left out, and others are played for them. `first` numbers the first
    copy, which determines the seeds. Raises RuntimeError after too many bad episodes.
    """
    what, copies = spec.tasks[task], min(episodes, MOST_COPIES)
    seeds = [copy_seed(spec.seed, EVALUATION_STREAM, first + copy) for copy in range(copies)]
    environment = make_environment(spec.backend, what, seeds, spec.threads)
    try:
        filled = -(-copies // ROWS) * ROWS
        policy = make_policy(spec.acting, message, np.full(filled, task))
        observations = room([what], filled, spec.observation_size)
        inputs, held = environment.reset(), [Held() for _ in range(copies)]
        # A fixed number for each copy: the first to end would mostly be the short ones.
        wanted = [len(range(copy, episodes, copies)) for copy in range(copies)]
        found: list[list[tuple[Episode, bool]]] = [[] for _ in range(copies)]
        bad = 0
        while any(len(done) < many for done, many in zip(found, wanted, strict=True)):
            place(inputs, what, observations, slice(copies))
            actions = policy.act(observations)[:copies, : what.action_size]
            environment.send(actions)
            step = environment.recv()
            for copy, one in enumerate(held):
                if len(found[copy]) == wanted[copy] or (step.idle is not None and step.idle[copy]):
                    continue
                one.append(inputs[copy], actions[copy], float(step.rewards[copy]), bool(step.successes[copy]))
                cut = len(one.rewards) >= what.episode_limit
                if not (step.terminated[copy] or step.truncated[copy] or cut):
                    continue
                episode = one.episode(step.observations[copy], bool(step.terminated[copy]))
                if all_numbers(episode.rewards, episode.observations):
                    found[copy].append((episode, one.success))
                else:
                    bad += 1
                    if bad > MOST_BAD * episodes:
                        raise RuntimeError(f"{what.name}: {bad} episodes held NaN or infinite numbers")
                held[copy] = Held()
            inputs = step.next_inputs
        made = [one for done in found for one in done]
        return [episode for episode, _ in made], [success for _, success in made]
    finally:
        close_in_time([environment])


class Held:
    """The steps of a copy's current episode."""

    def __init__(self) -> None:
        self.observations: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []
        self.success = False

    def append(self, observation: np.ndarray, action: np.ndarray, reward: float, success: bool) -> None:
        self.observations.append(observation.copy())
        self.actions.append(action.copy())
        self.rewards.append(reward)
        self.success |= success

    def episode(self, last: np.ndarray, terminated: bool) -> Episode:
        return Episode(
            np.stack([*self.observations, last]).astype(np.float32),
            np.stack(self.actions).astype(np.float32),
            np.array(self.rewards, np.float32),
            terminated,
        )
