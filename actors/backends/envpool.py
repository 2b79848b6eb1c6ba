"""Environments of envpool: a thread pool in C++, with 1.3 to 9 times dm_control's steps per CPU second."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from actors.backends.actions import Taken, indices, mujoco_scaler
from actors.benchmarks.benchmark import Task
from actors.environments import Step

# Of envpool's families, jumanji loads matplotlib: 0.8 s of CPU and 37 MB in every actor. No benchmark here has its
# tasks. It is left out of `import envpool`; `import envpool.jumanji.registration` loads it where it is wanted.
JUMANJI = "envpool.jumanji.registration"
EMPTY = ModuleType(JUMANJI)
sys.modules.setdefault(JUMANJI, EMPTY)
import envpool  # noqa: E402

if sys.modules[JUMANJI] is EMPTY:
    del sys.modules[JUMANJI]

FILM = {"render_mode": "rgb_array", "render_width": 320, "render_height": 240}


class EnvpoolEnvironment:
    """A synchronous pool whose finished copies are reset at once instead of in the next step.

    envpool's own autoreset spends the next step on the reset, and returns a reward that belongs to no transition. An
    explicit reset loses no step and returns no such reward.
    """

    def __init__(self, task: Task, seeds: Sequence[int], threads: int = 1, film: bool = False) -> None:
        self.task = task
        self.copies = len(seeds)
        self.make_pool = partial(
            envpool.make,
            task.library_id,
            env_type="gymnasium",
            num_envs=self.copies,
            seed=[int(seed) for seed in seeds],
            num_threads=min(threads, self.copies),
            max_episode_steps=task.environment_limit,
            **dict(task.options),
            **(FILM if film else {}),
        )
        self.pool = self.make_pool()
        space = self.pool.action_space
        self.scale: Taken = indices if task.num_actions else mujoco_scaler(space.low, space.high)
        self.ids = np.arange(self.copies, dtype=np.int32)
        self.sent = np.zeros((self.copies, *space.shape), space.dtype)

    def reset(self) -> np.ndarray:
        return self._flatten(self.pool.reset()[0])

    def send(self, actions: np.ndarray) -> None:
        self.sent = self.scale(actions)
        self.pool.send(self.sent, self.ids)

    def recv(self) -> Step:
        observations, rewards, terminated, truncated, successes = self._received()
        for _ in range(self.task.action_repeat - 1):
            on = np.flatnonzero(~(terminated | truncated))
            if not len(on):
                break
            self.pool.send(self.sent[on], self.ids[on])
            observations[on], more, terminated[on], truncated[on], again = self._received()
            rewards[on] += more
            successes[on] |= again
        next_inputs = observations
        if terminated.any() or truncated.any():
            ended = np.flatnonzero(terminated | truncated)
            next_inputs = observations.copy()
            next_inputs[ended] = self.restart(ended)
        return Step(observations, rewards, terminated, truncated, successes, next_inputs)

    def _received(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Wait for a step of the copies that were sent actions, and return its results in their order."""
        observed, rewards, terminated, truncated, info = self.pool.recv()
        key = self.task.success_key
        return (
            self._flatten(observed),
            rewards,
            terminated,
            truncated,
            info[key] > 0.5 if key else np.zeros(len(rewards), bool),
        )

    def restart(self, copies: np.ndarray) -> np.ndarray:
        return self._flatten(self.pool.reset(self.ids[copies])[0])

    def begun(self) -> list[Any]:
        return []

    def fast_forward(
        self, resets: Sequence[int], actions: Sequence[np.ndarray], begun: Sequence[Any] = ()
    ) -> np.ndarray:
        inputs = np.zeros((self.copies, *self.task.observation_shape), self.task.observation_dtype)
        for copy, (count, taken) in enumerate(zip(resets, actions, strict=True)):
            one = self.ids[copy : copy + 1]
            for _ in range(count):
                inputs[copy] = self._flatten(self.pool.reset(one)[0])[0]
            for action in taken:
                for _ in range(self.task.action_repeat):
                    self.pool.send(self.scale(action[None]), one)
                    inputs[copy] = self._flatten(self.pool.recv()[0])[0]
        return inputs

    def frame(self) -> np.ndarray:
        """Return a picture of the first copy, (height, width, 3) uint8. Aborts the process if no OpenGL is loaded."""
        return np.asarray(self.pool.render(env_ids=[0])[0])

    def close(self) -> None:
        self.pool.close()

    def _flatten(self, observed: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
        if self.task.image:
            return np.asarray(observed)
        if not isinstance(observed, dict):
            return observed.astype(np.float32)
        parts = []
        for key, size in self.task.observation_keys:
            # Scalars come without a last dimension.
            part = observed[key]
            parts.append(part.reshape(len(part), size))
        return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")
