"""Libraries of environments, called directly. The tests compare this project's backends with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import envpool
import gymnasium
import numpy as np

from actors.backends.actions import mujoco_scaler
from actors.benchmarks import humanoid_bench, shadow_hand
from actors.benchmarks.benchmark import Task

COPIES, LIMIT, SEEDS = 3, 40, [11, 22, 33]
NEVER = np.zeros(COPIES, bool)
# The first observations; one step of all copies: actions -> (observations, rewards, terminated, truncated, successes);
# the reset of one copy: copy -> its observation.
ByHand = tuple[np.ndarray, Callable[[np.ndarray], tuple[Any, ...]], Callable[[int], np.ndarray]]


def flat(task: Task, observed: Any) -> np.ndarray:
    """Return the observation of one copy as a flat array."""
    parts = [np.ravel(observed[key] if key else observed) for key, _ in task.observation_keys]
    return np.concatenate(parts).astype(np.float32)


def envpool_by_hand(task: Task) -> ByHand:
    """Make pools of one copy. Their own reset takes the place of a step, whose reward belongs to no transition."""
    pools = [
        envpool.make(
            task.library_id,
            env_type="gymnasium",
            num_envs=1,
            seed=[seed],
            num_threads=1,
            max_episode_steps=task.episode_limit,
            **dict(task.options),
        )
        for seed in SEEDS
    ]
    space = pools[0].action_space

    def row(observed: Any) -> np.ndarray:
        if task.image:
            return np.asarray(observed[0])
        if not isinstance(observed, dict):
            return np.asarray(observed[0], np.float32)
        return flat(task, {key: value[0] for key, value in observed.items() if not isinstance(value, dict)})

    def scale(actions: np.ndarray) -> np.ndarray:
        if task.num_actions:
            return actions[:, 0].astype(np.int32)
        return mujoco_scaler(space.low, space.high)(actions)

    def step(actions: np.ndarray) -> tuple[Any, ...]:
        found = [pool.step(action[None]) for pool, action in zip(pools, scale(actions), strict=True)]
        assert all(info["elapsed_step"][0] > 0 for *_, info in found)
        success = [bool(task.success_key) and info[task.success_key][0] > 0.5 for *_, info in found]
        rewards, terminated, truncated = (np.concatenate([one[part] for one in found]) for part in (1, 2, 3))
        return np.stack([row(one[0]) for one in found]), rewards, terminated, truncated, np.array(success)

    def reset(copy: int) -> np.ndarray:
        observed, _, _, _, info = pools[copy].step(scale(np.zeros((1, task.action_size), np.float32)))
        assert info["elapsed_step"][0] == 0
        return row(observed)

    return np.stack([row(pool.reset()[0]) for pool in pools]), step, reset


def dm_control_by_hand(task: Task) -> ByHand:
    from actors.backends.dm_control import load

    made = [load(task, seed) for seed in SEEDS]
    counts = [0] * COPIES

    def step(actions: np.ndarray) -> tuple[Any, ...]:
        found = [environment.step(action) for environment, action in zip(made, actions, strict=True)]
        counts[:] = [count + 1 for count in counts]
        rewards = np.array([one.reward for one in found], np.float32)
        truncated = np.array([count == task.episode_limit for count in counts])
        return (
            np.stack([flat(task, one.observation) for one in found]),
            rewards,
            ~truncated & False,
            truncated,
            ~truncated & False,
        )

    def reset(copy: int) -> np.ndarray:
        counts[copy] = 0
        return flat(task, made[copy].reset().observation)

    return np.stack([reset(copy) for copy in range(COPIES)]), step, reset


def ale_py_by_hand(task: Task) -> ByHand:
    """Make copies in ale-py's vector environment. Its own reset takes the place of a step."""
    from ale_py.vector_env import AtariVectorEnv

    made = AtariVectorEnv(
        task.short_name.replace("-", "_"),
        COPIES,
        max_num_frames_per_episode=4 * task.episode_limit,
        repeat_action_probability=0.25,
        full_action_space=True,
        reward_clipping=False,
    )

    age = 0  # all copies end together

    def filled(observed: np.ndarray) -> np.ndarray:
        """Replace the black frames that the vector puts before an episode by the first frame of the episode."""
        first = np.repeat(observed[:, -1 - age, None], 3 - age, axis=1)
        return np.concatenate([first, observed[:, -1 - age :]], axis=1)

    def step(actions: np.ndarray) -> tuple[Any, ...]:
        nonlocal age
        age = min(age + 1, 3)
        observed, rewards, terminated, truncated, _ = made.step(actions[:, 0].astype(np.int64))
        return filled(observed), rewards, terminated, truncated, NEVER

    cached: list[np.ndarray] = []

    def reset(copy: int) -> np.ndarray:
        nonlocal age
        age = 0
        if copy == 0:
            cached[:] = [filled(made.step(np.zeros(COPIES, np.int64))[0])]
        return np.asarray(cached[0][copy])

    return filled(made.reset(seed=np.array(SEEDS))[0]), step, reset


def humanoid_bench_by_hand(task: Task) -> ByHand:
    """Make copies in humanoid-bench. Its resets also draw from numpy's global generator, so each copy has its own state
    of that generator, as if it were alone in its process."""
    humanoid_bench.prepare()
    return gymnasium_by_hand(task)


def shadow_hand_by_hand(task: Task) -> ByHand:
    shadow_hand.prepare()
    return gymnasium_by_hand(task)


def gymnasium_by_hand(task: Task) -> ByHand:
    options = {"max_episode_steps": task.episode_limit} | dict(task.options)
    made = [gymnasium.make(task.library_id, **options) for _ in SEEDS]
    space: Any = made[0].action_space

    def step(actions: np.ndarray) -> tuple[Any, ...]:
        if task.num_actions:
            found = [environment.step(int(action[0])) for environment, action in zip(made, actions, strict=True)]
            return results(found)
        # Scale from [-1, 1] to the bounds.
        scaled = (space.low + space.high) / 2 + (space.high - space.low) / 2 * actions.reshape(COPIES, *space.shape)
        found = [environment.step(action.astype(np.float32)) for environment, action in zip(made, scaled, strict=True)]
        return results(found)

    def results(found: list[Any]) -> tuple[Any, ...]:
        rewards = np.array([one[1] for one in found], np.float32)
        success = np.array([bool(one[4].get("is_success", one[4].get("success", False))) for one in found])
        ends = [np.array([one[place] for one in found]) for place in (2, 3)]
        return np.stack([flat(task, one[0]) for one in found]), rewards, *ends, success

    alone: list[Any] = [None] * COPIES

    def reset(copy: int, seed: int | None = None) -> np.ndarray:
        if seed is not None:
            np.random.seed(seed)
        else:
            np.random.set_state(alone[copy])
        observed = made[copy].reset(seed=seed)[0]
        alone[copy] = np.random.get_state()
        return flat(task, observed)

    return np.stack([reset(copy, seed) for copy, seed in enumerate(SEEDS)]), step, reset


BY_HAND = {
    "envpool": envpool_by_hand,
    "ale-py": ale_py_by_hand,
    "dm_control": dm_control_by_hand,
    "gymnasium": gymnasium_by_hand,
    "humanoid-bench": humanoid_bench_by_hand,
    "shadow-hand": shadow_hand_by_hand,
}
