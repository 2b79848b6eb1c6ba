"""08: a vectorised simulator of your own: `python -m examples.own_simulator`.

Any `gymnasium.vector.VectorEnv` is a task: `vector/<module>:<function>`, with a function of the number of copies. All
copies of an actor are one environment, on arrays of numpy, torch or JAX. examples/brax_simulator.py runs brax.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from examples.short import config, trained

TASK = "vector/examples.own_simulator:follow"


class Follow(VectorEnv[Any, Any, Any]):
    """Points on a line. Forces move them to goals, which are drawn anew in every episode of 100 steps."""

    max_episode_steps = 100

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.state = np.zeros((num_envs, 3), np.float32)  # place, speed, goal
        self.steps = np.zeros(num_envs, int)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        mask = options["reset_mask"] if options else np.ones(self.num_envs, bool)
        self.state[mask] = 0.0
        self.state[mask, 2] = self.rng.uniform(-1, 1, mask.sum())
        self.steps[mask] = 0
        return self.state.copy(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        place, speed, goal = self.state.T
        speed[:] = 0.9 * speed + 0.1 * actions[:, 0]
        place[:] += 0.1 * speed
        self.steps += 1
        over = self.steps >= self.max_episode_steps
        return self.state.copy(), -np.abs(place - goal), np.zeros(self.num_envs, bool), over, {}


def follow(num_envs: int) -> Follow:
    return Follow(num_envs)


def main(folder: Path) -> dict[str, float | None]:
    """Return the mean returns of the random policy and after training."""
    random, learned = trained(config(folder, (TASK,), steps=4000))
    return {"random": random.mean_return[TASK], "learned": learned.mean_return[TASK]}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(main(Path(temporary)))
