"""A simulator on JAX, of a thousand copies in one process: `pip install brax`, then

    brc train quickstart --tasks vector/examples.brax_simulator:reacher --actors.copies 256 --replay.segment-length 4

The adapter below is all that a batched simulator needs: a `gymnasium.vector.VectorEnv` that says how its copies are
reset. Observations and actions stay arrays of JAX, on the device where the simulator runs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from brax import envs
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv


class Brax(VectorEnv[Any, Any, Any]):
    """Copies of a task of brax. An episode ends early where brax says so, or after `max_episode_steps`."""

    def __init__(self, name: str, num_envs: int, max_episode_steps: int = 100, backend: str = "spring") -> None:
        task = envs.get_environment(name, backend=backend)
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (task.observation_size,))
        self.single_action_space = spaces.Box(-1.0, 1.0, (task.action_size,))
        self._step = jax.jit(jax.vmap(task.step))
        self._begin = jax.jit(partial(begun, task, num_envs))
        self.steps = jnp.zeros(num_envs, int)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.key = jax.random.PRNGKey(seed)
        self.key, key = jax.random.split(self.key)
        mask = options["reset_mask"] if options else jnp.ones(self.num_envs, bool)
        new = self._begin(key)
        old = self.state if options else new
        self.state: Any = jax.tree.map(lambda one, other: chosen(mask, one, other), new, old)
        self.steps = jnp.where(mask, 0, self.steps)
        return self.state.obs, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.state = self._step(self.state, actions)
        self.steps += 1
        terminated = self.state.done > 0
        return self.state.obs, self.state.reward, terminated, self.steps >= self.max_episode_steps, {}


def begun(task: Any, num_envs: int, key: Any) -> Any:
    """Return the first states of all copies."""
    return jax.vmap(task.reset)(jax.random.split(key, num_envs))


def chosen(mask: Any, one: Any, other: Any) -> Any:
    """Return rows of `one` where the mask is true, else of `other`."""
    return jnp.where(mask.reshape(-1, *[1] * (one.ndim - 1)), one, other)


def reacher(num_envs: int) -> Brax:
    return Brax("reacher", num_envs)


def pendulum(num_envs: int) -> Brax:
    return Brax("inverted_pendulum", num_envs)


def halfcheetah(num_envs: int) -> Brax:
    return Brax("halfcheetah", num_envs, max_episode_steps=1000)
