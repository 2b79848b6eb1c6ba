"""The Arcade Learning Environment through ale-py's own vector of games: the reference for tests of envpool's Atari."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv

from actors.backends.actions import Taken, indices
from actors.benchmarks.atari import game
from actors.benchmarks.benchmark import Task
from actors.environments import Step, after_resets


class AleEnvironment:
    """Copies of one game, each a vector of its own with one thread. A vector of several copies cannot step or reset a
    single copy, and a resume needs that."""

    def __init__(self, task: Task, seeds: Sequence[int]) -> None:
        self.task = task
        self.copies = len(seeds)
        self.scale: Taken = indices
        options = dict(task.options)
        self.games = [
            AtariVectorEnv(
                game(task),
                num_envs=1,
                num_threads=1,
                max_num_frames_per_episode=task.episode_limit * options["frame_skip"],
                repeat_action_probability=options["repeat_action_probability"],
                full_action_space=options["full_action_space"],
                stack_num=options["stack_num"],
                img_height=options["img_height"],
                img_width=options["img_width"],
                frameskip=options["frame_skip"],
                noop_max=options["noop_max"],
                episodic_life=options["episodic_life"],
                reward_clipping=options["reward_clip"],
                use_fire_reset=options["use_fire_reset"],
            )
            for _ in seeds
        ]
        self.seeds: list[int | None] = [int(seed) for seed in seeds]
        self.ages = np.zeros(self.copies, np.int64)  # steps of the current episodes

    def reset(self) -> np.ndarray:
        return np.stack([self._reset(copy) for copy in range(self.copies)])

    def send(self, actions: np.ndarray) -> None:
        for copy, action in enumerate(self.scale(actions)):
            self.games[copy].send(action[None])

    def recv(self) -> Step:
        found = [game.recv() for game in self.games]
        self.ages += 1
        observations = np.stack([self._filled(copy, one[0][0]) for copy, one in enumerate(found)])
        rewards, terminated, truncated = (np.concatenate([one[part] for one in found]) for part in (1, 2, 3))
        next_inputs = after_resets(observations, terminated | truncated, self._reset)
        successes = np.zeros(self.copies, bool)
        return Step(observations, rewards.astype(np.float32), terminated, truncated, successes, next_inputs)

    def restart(self, copies: np.ndarray) -> np.ndarray:
        return np.stack([self._reset(copy) for copy in copies.tolist()])

    def begun(self) -> list[Any]:
        return []

    def fast_forward(
        self, resets: Sequence[int], actions: Sequence[np.ndarray], begun: Sequence[Any] = ()
    ) -> np.ndarray:
        inputs = np.zeros((self.copies, *self.task.observation_shape), np.uint8)
        for copy in range(self.copies):
            for _ in range(resets[copy]):
                inputs[copy] = self._reset(copy)
            for action in actions[copy]:
                self.ages[copy] += 1
                inputs[copy] = self._filled(copy, self.games[copy].step(self.scale(action[None]))[0][0])
        return inputs

    def close(self) -> None:
        self.games.clear()

    def _reset(self, copy: int) -> np.ndarray:
        seed, self.seeds[copy] = self.seeds[copy], None
        observed, _ = self.games[copy].reset(seed=seed)
        self.ages[copy] = 0
        return self._filled(copy, observed[0])

    def _filled(self, copy: int, stack: np.ndarray) -> np.ndarray:
        """Return the stack with an episode's first frame in place of the frames before it. ale-py makes them black;
        envpool and replay repeat the first frame."""
        missing = len(stack) - 1 - int(self.ages[copy])
        if missing > 0:
            stack = stack.copy()
            stack[:missing] = stack[missing]
        return stack
