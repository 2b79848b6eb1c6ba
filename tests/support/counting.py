"""Small gymnasium environments whose numbers are known in advance. Importing this registers them."""

from __future__ import annotations

import threading
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class Counting(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """An environment that counts its steps. An episode ends after `ends` steps, with success if the last number of the
    last action was positive.

    `raises`, `hangs` and `leaks` are the steps, counted over all episodes, at which it fails, stops answering, and
    begins to take another 50 MB with every step.
    """

    observation_space: Any = spaces.Dict({"steps": spaces.Box(0, 1e3, (1,)), "seed": spaces.Box(0, 1, (2, 2))})
    action_space: Any = spaces.Box(np.array([0.0, -2.0], np.float32), np.array([4.0, 2.0], np.float32))

    def __init__(self, ends: int = 7, raises: int = 0, hangs: int = 0, leaks: int = 0, takes_s: float = 0.0) -> None:
        self.ends, self.raises, self.hangs, self.leaks, self.takes_s = ends, raises, hangs, leaks, takes_s
        self.total, self.count = 0, 0
        self.held: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        self.drawn = self.np_random.random((2, 2)).astype(np.float32)
        return self._observed(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.count += 1
        self.total += 1
        if self.total == self.raises:
            raise ZeroDivisionError("the environment cannot go on")
        if self.total == self.hangs:
            threading.Event().wait()
        time.sleep(self.takes_s)
        if self.leaks and self.total > self.leaks:
            self.held.append(np.ones(50_000_000, np.uint8))
        over = self.count == self.ends
        return self._observed(), float(action[0]), over, False, {"is_success": over and action[1] > 0}

    def _observed(self) -> dict[str, np.ndarray]:
        return {"steps": np.array([self.count], np.float32), "seed": self.drawn.copy()}


class Uneven(Counting):
    """An environment whose episodes have 2 steps and 20 in turn."""

    def __init__(self) -> None:
        super().__init__(ends=20)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.ends = 22 - self.ends
        return super().reset(seed=seed, options=options)


class Several(Counting):
    """An environment that takes several discrete actions at once."""

    action_space: Any = spaces.MultiDiscrete([2, 3])


class LongPole(CartPoleEnv):
    """A pole twice as long and three times as heavy."""

    def __init__(self) -> None:
        super().__init__()
        self.length, self.masspole = 2 * self.length, 3 * self.masspole
        self.total_mass, self.polemass_length = self.masspole + self.masscart, self.masspole * self.length


gymnasium.register("LongPole-v0", "tests.support.counting:LongPole", max_episode_steps=500)
gymnasium.register("Several-v0", "tests.support.counting:Several", max_episode_steps=10)
gymnasium.register("Uneven-v0", "tests.support.counting:Uneven", max_episode_steps=30)
gymnasium.register("Counting-v0", "tests.support.counting:Counting", max_episode_steps=10)
for fault in ("raises", "hangs", "leaks"):
    gymnasium.register(f"{fault}-v0", "tests.support.counting:Counting", max_episode_steps=10, kwargs={fault: 400})
gymnasium.register("slow-v0", "tests.support.counting:Counting", max_episode_steps=10, kwargs={"takes_s": 0.02})
gymnasium.register("Endless-v0", "tests.support.counting:Counting")
