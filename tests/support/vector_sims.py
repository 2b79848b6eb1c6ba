"""Vectorised simulators: gymnasium's own vector in each autoreset mode, and one of our own on arrays of any library."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

import tests.support.counting  # noqa: F401  # registers Counting-v0


def vector(name: str, mode: AutoresetMode, num_envs: int, **options: Any) -> Any:
    return gymnasium.make_vec(name, num_envs, "sync", vector_kwargs={"autoreset_mode": mode}, **options)


def hopper_next_step(num_envs: int, **options: Any) -> Any:
    return vector("Hopper-v5", AutoresetMode.NEXT_STEP, num_envs, **options)


def hopper_same_step(num_envs: int, **options: Any) -> Any:
    return vector("Hopper-v5", AutoresetMode.SAME_STEP, num_envs, **options)


def hopper_disabled(num_envs: int, **options: Any) -> Any:
    return vector("Hopper-v5", AutoresetMode.DISABLED, num_envs, **options)


def counting_next_step(num_envs: int) -> Any:
    return vector("Counting-v0", AutoresetMode.NEXT_STEP, num_envs)


def counting_same_step(num_envs: int) -> Any:
    return vector("Counting-v0", AutoresetMode.SAME_STEP, num_envs)


def counting_disabled(num_envs: int) -> Any:
    return vector("Counting-v0", AutoresetMode.DISABLED, num_envs)


class Points(VectorEnv[Any, Any, Any]):
    """Points on a line that are pushed towards 0, on arrays of the library `xp`. Episodes have 20 steps.

    The observation is a Dict: the place, which the policy sees, and the speed. Copy 1 shows NaN in the middle of its
    second episode if `breaks`.
    """

    max_episode_steps = 20

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


def points(num_envs: int) -> Points:
    return Points(num_envs, AutoresetMode.NEXT_STEP)


def points_torch(num_envs: int) -> Points:
    return Points(num_envs, AutoresetMode.SAME_STEP, "torch")


def points_jax(num_envs: int) -> Points:
    return Points(num_envs, AutoresetMode.DISABLED, "jax")


def breaking_next_step(num_envs: int) -> Points:
    return Points(num_envs, AutoresetMode.NEXT_STEP, breaks=True)


def breaking_same_step(num_envs: int) -> Points:
    return Points(num_envs, AutoresetMode.SAME_STEP, breaks=True)


def breaking_disabled(num_envs: int) -> Points:
    return Points(num_envs, AutoresetMode.DISABLED, breaks=True)


def modeless(num_envs: int) -> Points:
    made = points(num_envs)
    made.metadata = {}
    return made


def endless(num_envs: int) -> Points:
    made = points(num_envs)
    made.max_episode_steps = None  # type: ignore[assignment]
    return made


def forgetful(num_envs: int) -> Any:
    """Return a vector in mode SAME_STEP that does not tell the last observations."""
    made = Points(num_envs, AutoresetMode.SAME_STEP)
    step = made.step
    made.step = lambda actions: (*step(actions)[:4], {})  # type: ignore[method-assign]
    return made


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


def lucky_next_step(num_envs: int) -> Any:
    return vector("Lucky-v0", AutoresetMode.NEXT_STEP, num_envs)


def lucky_same_step(num_envs: int) -> Any:
    return vector("Lucky-v0", AutoresetMode.SAME_STEP, num_envs)


def lucky_disabled(num_envs: int) -> Any:
    return vector("Lucky-v0", AutoresetMode.DISABLED, num_envs)


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


def sparing(num_envs: int) -> Sparing:
    return Sparing(num_envs, AutoresetMode.DISABLED)


class Alone(Points):
    """A simulator of which a process can have one only."""

    taken = False

    def __init__(self, num_envs: int) -> None:
        assert not Alone.taken, "there is one already"
        Alone.taken = True
        super().__init__(num_envs, AutoresetMode.DISABLED)

    def close(self, **options: Any) -> None:
        Alone.taken = False


def alone(num_envs: int) -> Alone:
    return Alone(num_envs)
