"""Environments of dm_control itself, in one process, one copy after another: the reference for tests of envpool."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.backends.actions import Taken, mujoco_scaler
from actors.benchmarks.benchmark import Task
from actors.closing import close_all
from actors.environments import Step, after_resets

# Rendering needs a display or EGL. Training renders nothing; only quadruped-escape cannot load without GL.
os.environ.setdefault("MUJOCO_GL", "disabled")

from dm_control import suite


def load(task: Task, seed: int) -> Any:
    """Load a task as an environment of dm_control's interface."""
    if task.benchmark == "dmc-extra":
        from actors.benchmarks import dmc_extra

        return dmc_extra.load(task.short_name, seed)
    domain, name = task.short_name.split("-", 1)
    return suite.load(domain, name, task_kwargs={"random": seed})


class DmControlEnvironment:
    """Copies that are stepped in `recv`, on the caller's thread."""

    def __init__(self, task: Task, seeds: Sequence[int]) -> None:
        self.task = task
        self.copies = len(seeds)
        self.environments = [load(task, int(seed)) for seed in seeds]
        bounds = self.environments[0].action_spec()
        low, high = (np.broadcast_to(bound, bounds.shape) for bound in (bounds.minimum, bounds.maximum))
        self.scale: Taken = mujoco_scaler(low, high)
        self.lengths = np.zeros(self.copies, np.int64)
        self.actions = np.zeros((self.copies, task.action_size), bounds.dtype)

    def reset(self) -> np.ndarray:
        return np.stack([self._reset(copy) for copy in range(self.copies)])

    def send(self, actions: np.ndarray) -> None:
        self.actions[:] = self.scale(actions)

    def recv(self) -> Step:
        observations = np.empty((self.copies, *self.task.observation_shape), np.float32)
        rewards = np.zeros(self.copies, np.float32)
        terminated, truncated = np.zeros(self.copies, bool), np.zeros(self.copies, bool)
        for index, environment in enumerate(self.environments):
            for _ in range(self.task.action_repeat):
                timestep = environment.step(self.actions[index])
                self.lengths[index] += 1
                rewards[index] += timestep.reward
                # At dm_control's own time limit the discount stays 1; a task that ends itself sets it to 0.
                terminated[index] = timestep.last() and timestep.discount == 0.0
                # lqr has no limit of its own.
                over = timestep.last() or self.lengths[index] >= self.task.environment_limit
                truncated[index] = over and not terminated[index]
                if over:
                    break
            observations[index] = self._flatten(timestep.observation)
        next_inputs = after_resets(observations, terminated | truncated, self._reset)
        return Step(observations, rewards, terminated, truncated, np.zeros(self.copies, bool), next_inputs)

    def restart(self, copies: np.ndarray) -> np.ndarray:
        return np.stack([self._reset(copy) for copy in copies.tolist()])

    def begun(self) -> list[Any]:
        return []

    def fast_forward(
        self, resets: Sequence[int], actions: Sequence[np.ndarray], begun: Sequence[Any] = ()
    ) -> np.ndarray:
        inputs = np.zeros((self.copies, *self.task.observation_shape), np.float32)
        for copy, environment in enumerate(self.environments):
            for _ in range(resets[copy]):
                inputs[copy] = self._flatten(environment.reset().observation)
            for action in np.repeat(actions[copy], self.task.action_repeat, axis=0):
                inputs[copy] = self._flatten(environment.step(self.scale(action)).observation)
            self.lengths[copy] = len(actions[copy]) * self.task.action_repeat
        return inputs

    def frame(self) -> np.ndarray:
        """Return a picture of the first copy, (height, width, 3) uint8. This fails with MUJOCO_GL=disabled."""
        return np.asarray(self.environments[0].physics.render(240, 320, camera_id=0))

    def close(self) -> None:
        close_all(self.environments)

    def _reset(self, copy: int) -> np.ndarray:
        self.lengths[copy] = 0
        return self._flatten(self.environments[copy].reset().observation)

    def _flatten(self, observed: dict[str, Any]) -> np.ndarray:
        parts = [np.ravel(observed[key]) for key, _ in self.task.observation_keys]
        return np.concatenate(parts, dtype=np.float32, casting="same_kind")
