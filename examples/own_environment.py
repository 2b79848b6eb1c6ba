"""02: an environment of your own: `python -m examples.own_environment`.

Any environment that gymnasium can make is a task: `gymnasium/<module>:<id>`, here `gymnasium/examples.own_environment:
Follow-v0`. From the command line: `brc train quickstart --tasks gymnasium/examples.own_environment:Follow-v0`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from examples.short import config, trained

TASK = "gymnasium/examples.own_environment:Follow-v0"


class Follow(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point on a line. A force moves it to a goal, which is drawn anew in every episode."""

    observation_space: Any = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space: Any = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.speed, self.goal = 0.0, 0.0, float(self.np_random.uniform(-1, 1))
        return self._observed(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.speed = 0.9 * self.speed + 0.1 * float(action[0])
        self.at += 0.1 * self.speed
        return self._observed(), -abs(self.at - self.goal), False, False, {}

    def _observed(self) -> np.ndarray:
        return np.array([self.at, self.speed, self.goal], np.float32)


gymnasium.register("Follow-v0", "examples.own_environment:Follow", max_episode_steps=100)


def main(folder: Path) -> dict[str, float | None]:
    """Return the mean returns of the random policy and after training."""
    random, learned = trained(config(folder, (TASK,)))
    return {"random": random.mean_return[TASK], "learned": learned.mean_return[TASK]}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(main(Path(temporary)))
