"""Environments as users have them beside their scripts. Tests copy this file to the folder where `brc` is called.

A file `sizes` beside this file holds the sizes of an observation and an action, the steps of an episode, and a number
r: actions lie between -r and r. If a file `broken` is there, environments can be made only in a process without Ray.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

HERE = Path(__file__).parent
SIZES = [int(word) for word in (HERE / "sizes").read_text().split()] if (HERE / "sizes").exists() else [3, 2, 20]
OBSERVED, ACTIONS, LIMIT, REACH = (*SIZES, 1)[:4]


class Still(gymnasium.Env[np.ndarray, np.ndarray]):
    """An environment with observations and rewards of zero."""

    observation_space = spaces.Box(-1.0, 1.0, (OBSERVED,), np.float32)
    action_space = spaces.Box(-REACH, REACH, (ACTIONS,), np.float32)

    def __init__(self, **_: Any) -> None:
        if (HERE / "broken").exists() and "ray" in sys.modules:
            raise ValueError("its licence is used up")
        assert Path("marker").exists(), f"made in {os.getcwd()}"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(OBSERVED, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(OBSERVED, np.float32), 0.0, False, False, {}


class Wandering(Still):
    """An environment that changes the directory of its process when it is made, and with every step."""

    def __init__(self, **_: Any) -> None:
        (HERE / "away").mkdir(exist_ok=True)
        (HERE / "away" / "marker").touch()
        os.chdir("away")

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        os.chdir("/")
        return super().step(action)


for name in (Still, Wandering):
    gymnasium.register(f"{name.__name__}-v0", name, max_episode_steps=LIMIT)
