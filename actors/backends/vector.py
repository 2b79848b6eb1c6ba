"""Vectorised simulators: any `gymnasium.vector.VectorEnv`, whose copies step together in one process.

The copies of a simulator are reset in one of gymnasium's three autoreset modes. In each, only true transitions reach
replay: with NEXT_STEP the step after an episode's end is idle, with SAME_STEP the true last observation comes from
`info["final_obs"]`, and with DISABLED ended copies are reset here, by `reset_mask`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actors.backends import here
from actors.backends.actions import Taken, bounds, box_scaler, indices
from actors.backends.returned import SUCCESS_KEYS, BadEnvironment, Exited
from actors.benchmarks.benchmark import Task
from actors.closing import close
from actors.environments import Step

FINAL = ("final_obs", "final_observation")  # today's name, and that of gymnasium 0.29
MODES = ("NextStep", "SameStep", "Disabled")  # gymnasium's values


def make(library_id: str, copies: int, **options: Any) -> Any:
    """Return a VectorEnv of this many copies. `library_id` is an id that `gymnasium.make_vec` takes, or module:function
    with a function of `num_envs` that returns one. Its module may be in the folder where `brc` was called."""
    import gymnasium

    here.enter()
    # JAX takes three quarters of a GPU's memory by default, in each process that has it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    module, _, name = library_id.rpartition(":")
    try:
        made = importlib.import_module(module) if module else None
        if made is not None and callable(getattr(made, name, None)):
            return getattr(made, name)(num_envs=copies, **options)
        return gymnasium.make_vec(name, num_envs=copies, **options)
    except SystemExit as error:
        raise Exited(f"vector/{library_id}", error) from error


def autoreset(task_name: str, environment: Any) -> str:
    """Return the environment's autoreset mode, one of MODES. Raises BadEnvironment if it does not tell one."""
    mode = (getattr(environment, "metadata", None) or {}).get("autoreset_mode")
    value = str(getattr(mode, "value", mode))
    if value not in MODES:
        raise BadEnvironment(
            f"{task_name}: its metadata has autoreset_mode {mode!r}: set it to a gymnasium.vector.AutoresetMode"
        )
    return value


class VectorEnvironment:
    """Copies of one VectorEnv. It takes and returns arrays of numpy, torch or JAX, on a CPU or a GPU.

    A single copy can only be reset in mode DISABLED. In the others a copy that `restart` is called for is idle until
    its episode has ended.
    """

    def __init__(self, task: Task, seeds: Sequence[int], film: bool = False, environment: Any = None) -> None:
        """Make the copies, or take the `environment` that has been made. Raises BadEnvironment if its actions are not
        those of the task."""
        self.task = task
        self.copies = len(seeds)
        options = {"render_mode": "rgb_array"} if film else {}
        self.environment = make(task.library_id, self.copies, **options) if environment is None else environment
        self.mode = autoreset(task.name, self.environment)
        self.seeds = [int(seed) for seed in seeds]
        space = self.environment.single_action_space
        if bounds(space) != (task.bounds or bounds(space)):
            raise BadEnvironment(
                f"{task.name}: its actions are {bounds(space)}, and were {task.bounds} when it was looked at first: "
                "give any number of copies the same single_action_space"
            )
        self.scale: Taken = indices if task.num_actions else box_scaler(space)
        self.first = int(space.start) if task.num_actions else 0
        self.shape = tuple(space.shape)
        self.sample: Any = None  # an array as the environment returns them
        self.sent: Any = None
        self.ended = np.zeros(self.copies, bool)  # whose next step is a reset
        self.waits = np.zeros(self.copies, bool)  # that are idle until their episode ends

    def reset(self) -> np.ndarray:
        seed = self.seeds if one_by_one(self.environment) else self.seeds[0]
        observed, _ = self.environment.reset(seed=seed)
        self.ended[:], self.waits[:] = False, False
        part = observed
        while isinstance(part, Mapping):
            part = next(iter(part.values()))
        self.sample = part
        return self._flat(observed)

    def send(self, actions: np.ndarray) -> None:
        taken = self.scale(actions) + self.first if self.task.num_actions else self.scale(actions)
        self.sent = like(taken.reshape(self.copies, *self.shape), self.sample)

    def recv(self) -> Step:
        observed, rewards, terminated, truncated, info = self.environment.step(self.sent)
        observations = self._flat(observed)
        rewards = to_numpy(rewards).astype(np.float32).reshape(self.copies)
        terminated, truncated = (to_numpy(flags).astype(bool).reshape(self.copies) for flags in (terminated, truncated))
        idle = self.ended | self.waits
        over = (terminated | truncated) & ~self.ended
        next_inputs = observations
        if over.any() and self.mode == "SameStep":
            observations = self._final(observations, info, over)
        elif over.any() and self.mode == "Disabled":
            next_inputs = observations.copy()
            next_inputs[over] = self._reset(over)[over]
        elif over.any():
            next_inputs = observations.copy()
            next_inputs[over] = 0.0  # the next action is not used
        successes = self._successes(info, over)
        self.ended = over if self.mode == "NextStep" else np.zeros(self.copies, bool)
        self.waits &= ~over
        if not idle.any():
            return Step(observations, rewards, terminated, truncated, successes, next_inputs)
        # What is left of a dropped episode may hold bad numbers.
        observations, next_inputs = observations.copy(), next_inputs.copy()
        observations[idle], rewards[idle], next_inputs[self.waits] = 0.0, 0.0, 0.0
        live = ~idle
        if not ((terminated | truncated) & live).any():
            observations = next_inputs
        return Step(observations, rewards, terminated & live, truncated & live, successes & live, next_inputs, idle)

    def restart(self, copies: np.ndarray) -> np.ndarray:
        if self.mode == "Disabled":
            found: np.ndarray = self._reset(np.isin(np.arange(self.copies), copies))[copies]
            return found
        self.waits[copies] = ~self.ended[copies]  # the next step of an ended copy is its reset
        return np.zeros((len(copies), *self.task.observation_shape), np.float32)

    def begun(self) -> list[Any]:
        return []

    def fast_forward(
        self, resets: Sequence[int], actions: Sequence[np.ndarray], begun: Sequence[Any] = ()
    ) -> np.ndarray:
        """Raises BadEnvironment: the copies of a simulator cannot be led back one by one."""
        raise BadEnvironment(f"{self.task.name} cannot be led back to an earlier state")

    def frame(self) -> np.ndarray:
        """Return a picture of the first copy, (height, width, 3) uint8."""
        found = self.environment.render()
        return np.asarray(found[0] if isinstance(found, (tuple, list)) else found)

    def close(self) -> None:
        close(self.environment)

    def _reset(self, mask: np.ndarray) -> np.ndarray:
        observed, _ = self.environment.reset(options={"reset_mask": like(mask, self.sample)})
        return self._flat(observed)

    def _flat(self, observed: Any) -> np.ndarray:
        """Return observations (copies, size) float32, a new array."""
        parts = []
        for key, size in self.task.observation_keys:
            part = to_numpy(observed[key] if key else observed)
            if part.size != self.copies * size:
                what = f" of {key}" if key else ""
                raise BadEnvironment(
                    f"{self.task.name}: its observation{what} has shape {part.shape}, not {self.copies} times {size}"
                )
            parts.append(part.reshape(self.copies, size))
        found: np.ndarray = np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")
        return found

    def _final(self, observations: np.ndarray, info: Mapping[str, Any], over: np.ndarray) -> np.ndarray:
        """Return the observations with the true last ones of ended copies in place of those of their resets."""
        final = next((info[name] for name in FINAL if name in info), None)
        if final is None:
            raise BadEnvironment(
                f"{self.task.name}: an episode ended in autoreset mode SAME_STEP without info['final_obs'], so its "
                "last observation is lost: give it one, or use another mode"
            )
        found = observations.copy()
        if not isinstance(final, Mapping) and to_numpy(final).dtype == object:  # an entry for each copy
            for copy in np.flatnonzero(over).tolist():
                one = final[copy]
                parts = [np.ravel(to_numpy(one[key] if key else one)) for key, _ in self.task.observation_keys]
                found[copy] = np.concatenate(parts)
            return found
        found[over] = self._flat(final)[over]
        return found

    def _successes(self, info: Mapping[str, Any], over: np.ndarray) -> np.ndarray:
        """Return (copies,) bool: where info, or the final info of ended copies, has a success."""
        found, final = np.zeros(self.copies, bool), info.get("final_info")
        # With a final info, the info of copies that ended is that of their reset.
        now = ~over if isinstance(final, Mapping) else np.ones(self.copies, bool)
        for place, where in ((info, now), (final if isinstance(final, Mapping) else {}, over)):
            for key in SUCCESS_KEYS:
                if place.get(key) is not None:
                    has = to_numpy(place.get(f"_{key}", np.ones(self.copies, bool))).astype(bool)
                    told = np.nan_to_num(to_numpy(place[key]).astype(np.float64)).reshape(self.copies, -1)
                    found |= where & has & (told > 0).any(axis=1)
        return found


def one_by_one(environment: Any) -> bool:
    """Whether each copy takes a seed of its own: gymnasium's own vectors do. Others get one for all copies."""
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

    return isinstance(getattr(environment, "unwrapped", environment), (SyncVectorEnv, AsyncVectorEnv))


def to_numpy(array: Any) -> np.ndarray:
    """Return an array of numpy, from one of torch or JAX on any device."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
    return np.asarray(array)


def like(array: np.ndarray, sample: Any) -> Any:
    """Return the array as one of the library and on the device of `sample`. Its library is loaded already."""
    if hasattr(sample, "detach"):
        return sys.modules["torch"].from_numpy(np.ascontiguousarray(array)).to(sample.device)
    if type(sample).__module__.startswith("jax"):
        (device,) = sample.devices()
        return sys.modules["jax"].device_put(array, device)
    return array
