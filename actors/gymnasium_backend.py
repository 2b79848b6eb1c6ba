"""Environments of gymnasium's interface, one process, one copy after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.catalogue import Task
from actors.environments import ActionScaler, Step, after_resets
from actors.gymnasium_tasks import make

SUCCESS_KEYS = ("success", "is_success")


class GymnasiumEnvironment:
    """Steps in `recv`, on the caller's thread. A copy's seed is given to its first reset, as gymnasium has it.

    Some libraries draw what a reset needs from numpy's global generator. Every copy has a state of that of its own, or
    copies would depend on each other, and could not be brought back to where they were.
    """

    def __init__(self, task: Task, seeds: Sequence[int], film: bool = False) -> None:
        self.task = task
        self.copies = len(seeds)
        options = {"max_episode_steps": task.episode_limit} | dict(task.options)
        if film:
            options["render_mode"] = "rgb_array"
        self.environments = [make(task.library_id, **options) for _ in seeds]
        self.seeds: list[int | None] = [int(seed) for seed in seeds]
        self.space = self.environments[0].action_space
        self.scale = None if task.num_actions else ActionScaler(self.space.low.ravel(), self.space.high.ravel())
        self.drawing = [np.random.RandomState(seed).get_state() for seed in seeds]
        self.actions = np.zeros((self.copies, task.action_size), np.float32)

    def reset(self) -> np.ndarray:
        return np.stack([self._reset(copy) for copy in range(self.copies)])

    def send(self, actions: np.ndarray) -> None:
        self.actions[:] = actions

    def recv(self) -> Step:
        observations = np.empty((self.copies, self.task.observation_size), np.float32)
        rewards = np.empty(self.copies, np.float32)
        terminated, truncated, successes = (np.zeros(self.copies, bool) for _ in range(3))
        for copy in range(self.copies):
            observed, rewards[copy], terminated[copy], truncated[copy], info = self._step(copy, self.actions[copy])
            observations[copy] = self._flatten(observed)
            successes[copy] = any(info.get(key, False) for key in SUCCESS_KEYS)
        next_inputs = after_resets(observations, terminated | truncated, self._reset)
        return Step(observations, rewards, terminated, truncated, successes, next_inputs)

    def restart(self, copies: np.ndarray) -> np.ndarray:
        return np.stack([self._reset(copy) for copy in copies.tolist()])

    def fast_forward(self, resets: Sequence[int], actions: Sequence[np.ndarray]) -> np.ndarray:
        inputs = np.zeros((self.copies, self.task.observation_size), np.float32)
        for copy in range(self.copies):
            for _ in range(resets[copy]):
                inputs[copy] = self._reset(copy)
            for action in actions[copy]:
                inputs[copy] = self._flatten(self._step(copy, action)[0])
        return inputs

    def frame(self) -> np.ndarray:
        """What the first copy looks like: (height, width, 3) uint8."""
        return np.asarray(self.environments[0].render())

    def close(self) -> None:
        for environment in self.environments:
            environment.close()

    def _reset(self, copy: int) -> np.ndarray:
        seed, self.seeds[copy] = self.seeds[copy], None
        others = np.random.get_state()
        np.random.set_state(self.drawing[copy])
        try:
            return self._flatten(self.environments[copy].reset(seed=seed)[0])
        finally:
            self.drawing[copy] = np.random.get_state()
            np.random.set_state(others)

    def _step(self, copy: int, action: np.ndarray) -> Any:
        if self.scale is None:
            return self.environments[copy].step(self.space.start + int(action[0]))
        scaled = self.scale(action).reshape(self.space.shape)
        return self.environments[copy].step(scaled.astype(self.space.dtype))

    def _flatten(self, observed: Any) -> np.ndarray:
        parts = [np.ravel(observed[key] if key else observed) for key, _ in self.task.observation_keys]
        return np.concatenate(parts, dtype=np.float32, casting="same_kind")
