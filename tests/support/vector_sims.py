"""Vectorised simulators: gymnasium's own vector in each autoreset mode, and one of our own on arrays of any library."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

import tests.support.counting  # noqa: F401  # registers Counting-v0


def vector(name: str, mode: AutoresetMode, num_envs: int, **options: Any) -> Any:
    return gymnasium.make_vec(name, num_envs, "sync", vector_kwargs={"autoreset_mode": mode}, **options)


hopper_next_step = partial(vector, "Hopper-v5", AutoresetMode.NEXT_STEP)
hopper_same_step = partial(vector, "Hopper-v5", AutoresetMode.SAME_STEP)
hopper_disabled = partial(vector, "Hopper-v5", AutoresetMode.DISABLED)
counting_next_step = partial(vector, "Counting-v0", AutoresetMode.NEXT_STEP)
counting_same_step = partial(vector, "Counting-v0", AutoresetMode.SAME_STEP)
counting_disabled = partial(vector, "Counting-v0", AutoresetMode.DISABLED)
lucky_next_step = partial(vector, "Lucky-v0", AutoresetMode.NEXT_STEP)
lucky_same_step = partial(vector, "Lucky-v0", AutoresetMode.SAME_STEP)
lucky_disabled = partial(vector, "Lucky-v0", AutoresetMode.DISABLED)


class Points(VectorEnv[Any, Any, Any]):
    """Points on a line that are pushed towards 0, on arrays of the library `xp`. Episodes have 20 steps.

    The observation is a Dict: the place, which the policy sees, and the speed. Copy 1 shows NaN in the middle of its
    second episode if `breaks`.
    """

    max_episode_steps: Any = 20

    def __init__(self, num_envs: int, mode: AutoresetMode, library: str = "numpy", breaks: bool = False) -> None:
        self.num_envs, self.library, self.breaks = num_envs, library, breaks
        self.metadata = {"autoreset_mode": mode}
        self.single_observation_space = spaces.Dict(
            {"place": spaces.Box(-np.inf, np.inf, (1,)), "speed": spaces.Box(-np.inf, np.inf, (1,))}
        )
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,))
        self.place, self.speed = np.zeros(num_envs), np.zeros(num_envs)
        self.steps, self.episodes = np.zeros(num_envs, int), np.zeros(num_envs, int)
        self.ended = np.zeros(num_envs, bool)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        mask = np.ones(self.num_envs, bool) if not options else np.asarray(options["reset_mask"], bool)
        self._begin(mask)
        return self._observed(), {}

    def _begin(self, mask: np.ndarray) -> None:
        self.place[mask] = self.rng.uniform(-1, 1, int(mask.sum()))
        self.speed[mask], self.steps[mask] = 0.0, 0
        self.episodes[mask] += 1

    def step(self, actions: Any) -> tuple[Any, ...]:
        assert type(actions).__module__.split(".")[0].startswith(self.library[:3])
        mode, taken = self.metadata["autoreset_mode"], np.asarray(actions)[:, 0]
        again = self.ended if mode == AutoresetMode.NEXT_STEP else np.zeros(self.num_envs, bool)
        self.speed = np.where(again, self.speed, 0.5 * self.speed + 0.2 * taken)
        self.place = self.place + self.speed
        self.steps += 1
        rewards = np.where(again, 7.0, 1.0 - np.abs(self.place))  # that of a reset has no meaning
        self._begin(again)
        self.ended = (self.steps >= self.max_episode_steps) & ~again
        info: dict[str, Any] = {}
        ended = self.ended.copy()
        if mode == AutoresetMode.SAME_STEP and ended.any():
            info = {"final_obs": self._observed(), "_final_obs": ended}
            self._begin(ended)
        never = self._array(np.zeros(self.num_envs, bool))
        return self._observed(), self._array(rewards), never, self._array(ended), info

    def _observed(self) -> dict[str, Any]:
        place = self.place.copy()
        if self.breaks and self.num_envs > 1 and self.episodes[1] == 2 and self.steps[1] >= 10:
            place[1] = np.nan
        return {"place": self._array(place[:, None]), "speed": self._array(self.speed[:, None])}

    def _array(self, array: np.ndarray) -> Any:
        array = array.astype(np.float32) if array.dtype == np.float64 else array.copy()
        if self.library == "numpy":
            return array
        if self.library == "torch":
            import torch

            return torch.from_numpy(array)
        import jax.numpy

        return jax.numpy.asarray(array)


class Modeless(Points):
    """Points that do not say how they are reset."""

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs, AutoresetMode.NEXT_STEP)
        self.metadata = {}


class Endless(Points):
    """Points whose episodes have no limit."""

    max_episode_steps: Any = None


class Forgetful(Points):
    """Points that do not tell the last observations of episodes."""

    def step(self, actions: Any) -> tuple[Any, ...]:
        return (*super().step(actions)[:4], {})


points = partial(Points, mode=AutoresetMode.NEXT_STEP)
points_torch = partial(Points, mode=AutoresetMode.SAME_STEP, library="torch")
points_jax = partial(Points, mode=AutoresetMode.DISABLED, library="jax")
breaking_next_step = partial(Points, mode=AutoresetMode.NEXT_STEP, breaks=True)
breaking_same_step = partial(Points, mode=AutoresetMode.SAME_STEP, breaks=True)
breaking_disabled = partial(Points, mode=AutoresetMode.DISABLED, breaks=True)
modeless = Modeless
endless = partial(Endless, mode=AutoresetMode.NEXT_STEP)
forgetful = partial(Forgetful, mode=AutoresetMode.SAME_STEP)


class Lucky(gymnasium.Env[np.ndarray, np.ndarray]):
    """An environment of three steps that fail, whose resets say that they succeed."""

    observation_space: Any = spaces.Box(-9, 9, (1,))
    action_space: Any = spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.ones(1, np.float32), {"is_success": True}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.ones(1, np.float32), 0.0, self.steps == 3, False, {"is_success": False}


gymnasium.register("Lucky-v0", "tests.support.vector_sims:Lucky", max_episode_steps=10)


class Sparing(Points):
    """Points whose copy 0 ends after 4 steps. A masked reset returns nothing of the other copies."""

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        observed, info = super().reset(seed=seed, options=options)
        if options:
            for part in observed.values():
                part[~np.asarray(options["reset_mask"], bool)] = 0.0
        else:
            self.steps[0] = 16
        return observed, info


sparing = partial(Sparing, mode=AutoresetMode.DISABLED)


class Alone(Points):
    """A simulator of which a process can have one only."""

    taken = False

    def __init__(self, num_envs: int) -> None:
        assert not Alone.taken, "there is one already"
        Alone.taken = True
        super().__init__(num_envs, AutoresetMode.DISABLED)

    def close(self, **options: Any) -> None:
        Alone.taken = False


alone = Alone
