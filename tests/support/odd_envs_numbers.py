"""Environments that return bad numbers. Importing this registers tests.support.odd_envs_numbers:<Name>-v0."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Sound(gym.Env[np.ndarray, np.ndarray]):
    """An environment of ten steps an episode. It refuses actions outside its space, such as NaN."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, **_: Any) -> None:
        self.t = self.resets = 0

    def observe(self) -> np.ndarray:
        return np.array([self.t / 10, float(self.np_random.random()) if self.t == 0 else 0.0, 1.0], np.float32)

    def pay(self, action: np.ndarray) -> Any:
        return float(-np.square(action).sum())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        self.resets += 1
        return self.observe(), {}

    def step(self, action: np.ndarray) -> Any:
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.t += 1
        return self.observe(), self.pay(action), self.t >= 10, False, {}

    @property
    def is_bad(self) -> bool:
        """Whether the episode is bad: every third episode is."""
        return self.resets % 3 == 2


class BadReward(Sound):
    def pay(self, action: np.ndarray) -> Any:
        return None if self.is_bad and self.t == 5 else super().pay(action)


class BadLastObservation(Sound):
    def observe(self) -> np.ndarray:
        return super().observe() * (np.inf if self.is_bad and self.t == 10 else 1)


class BadReset(Sound):
    def observe(self) -> np.ndarray:
        return super().observe() * (np.nan if self.resets % 3 != 2 and self.t == 0 else 1)


class AlwaysBad(Sound):
    def pay(self, action: np.ndarray) -> Any:
        return 1e300 if self.t == 5 else super().pay(action)


class Sometimes(Sound):
    """An episode is bad by chance."""

    def pay(self, action: np.ndarray) -> Any:
        return np.nan if self.t == 5 and self.np_random.random() < 0.5 else super().pay(action)


class Huge(Sound):
    """The squares of its bad observations overflow float32."""

    def observe(self) -> np.ndarray:
        return np.where(self.is_bad and self.t == 5, np.float32(1e20), super().observe())


class Large(Sound):
    def observe(self) -> np.ndarray:
        return super().observe() * np.float32(1e5)


for kind in (Sound, BadReward, BadLastObservation, BadReset, AlwaysBad, Sometimes, Huge, Large):
    gym.register(f"{kind.__name__}-v0", f"tests.support.odd_envs_numbers:{kind.__name__}", max_episode_steps=100)
