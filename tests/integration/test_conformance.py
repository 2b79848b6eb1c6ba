"""What every backend does with every benchmark: transitions are those of the library driven by hand, bit for bit."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import envpool
import gymnasium
import numpy as np
import pytest

from actors.backends.actions import mujoco_scaler
from actors.benchmarks import humanoid_bench, shadow_hand
from actors.benchmarks.atari import configured
from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import BACKENDS, UnknownNameError, all_tasks, benchmarks, resolve, suites
from actors.environments import make_environment
from cluster.config.schema import AtariConfig

FIVE = ["cartpole-swingup", "cheetah-run", "walker-walk", "humanoid-run", "dog-run"]
TEN = """
reach pick-place door-open drawer-close button-press peg-insert-side window-open sweep-into coffee-pull soccer
"""
GYMNASIUM = ["Pendulum-v1", "Hopper-v5", "CartPole-v1", "tests.support.counting:Counting-v0"]
GAMES = ["pong", "breakout", "ms-pacman"]
CASES = [
    *(("envpool", f"dmc/{name}") for name in FIVE),
    *(("dm_control", f"dmc/{name}") for name in FIVE[:3]),
    ("dm_control", "dmc-extra/reacher-three_easy"),
    *(("envpool", f"metaworld/{name}") for name in TEN.split()),
    *((backend, f"atari/{name}") for name in GAMES for backend in benchmarks()["atari"].backends),
    *(("gymnasium", f"gymnasium/{name}") for name in GYMNASIUM),
    *(("humanoid-bench", f"humanoid-bench/{name}") for name in ("h1-walk", "h1hand-sit_hard", "h1hand-cube")),
    ("shadow-hand", "shadow-hand/cube"),
]
USUAL = [
    (benchmarks()[task.benchmark].backends[0], name)
    for name, task in all_tasks().items()
    if task.benchmark not in ("metaworld", "atari")
]
REST = [case for case in USUAL if case not in CASES]
COPIES, LIMIT, SEEDS = 3, 40, [11, 22, 33]
NEVER = np.zeros(COPIES, bool)
# One step of all copies by hand: actions -> (observations, rewards, terminated, truncated, successes), and the reset of
# one copy -> its observation.
ByHand = tuple[np.ndarray, Callable[[np.ndarray], tuple[Any, ...]], Callable[[int], np.ndarray]]


def short(name: str) -> Task:
    (task,) = resolve([name])
    return replace(task, episode_limit=min(LIMIT, task.episode_limit))


def drawn(task: Task, rng: np.random.Generator, copies: int) -> np.ndarray:
    """Random actions of copies of a task."""
    if task.num_actions:
        return rng.integers(0, task.num_actions, (copies, 1)).astype(np.float32)
    return rng.uniform(-1, 1, (copies, task.action_size)).astype(np.float32)


def flat(task: Task, observed: Any) -> np.ndarray:
    """One copy's observation."""
    parts = [np.ravel(observed[key] if key else observed) for key, _ in task.observation_keys]
    return np.concatenate(parts).astype(np.float32)


def envpool_by_hand(task: Task) -> ByHand:
    """Its own reset takes the place of a step, and gives a reward that belongs to no transition."""
    pool = envpool.make(
        task.library_id,
        env_type="gymnasium",
        num_envs=COPIES,
        seed=SEEDS,
        num_threads=1,
        max_episode_steps=task.episode_limit,
        **dict(task.options),
    )

    def rows(observed: Any) -> np.ndarray:
        if task.image:
            return np.asarray(observed)
        if not isinstance(observed, dict):
            found: np.ndarray = observed.astype(np.float32)
            return found
        return np.stack([flat(task, {key: value[i] for key, value in observed.items()}) for i in range(COPIES)])

    def scale(actions: np.ndarray) -> np.ndarray:
        if task.num_actions:
            return actions[:, 0].astype(np.int32)
        return mujoco_scaler(pool.action_space.low, pool.action_space.high)(actions)

    def step(actions: np.ndarray) -> tuple[Any, ...]:
        observed, rewards, terminated, truncated, info = pool.step(scale(actions))
        assert (info["elapsed_step"] > 0).all()
        success = info[task.success_key] > 0.5 if task.success_key else NEVER
        return rows(observed), rewards, terminated, truncated, success

    # All copies end together at their limit: the next step resets every one of them, whatever the action.
    cached: list[np.ndarray] = []

    def reset(copy: int) -> np.ndarray:
        if copy == 0:
            observed, _, _, _, info = pool.step(scale(np.zeros((COPIES, task.action_size), np.float32)))
            assert (info["elapsed_step"] == 0).all()
            cached[:] = [rows(observed)]
        return np.asarray(cached[0][copy])

    return rows(pool.reset()[0]), step, reset


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
    """A vector of all copies, whose own reset takes the place of a step."""
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
        """With the first frame of an episode where the vector has black ones."""
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
    """Its resets draw from numpy's global generator too: of each copy, as if it had the process to itself."""
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
        # By hand: from [-1, 1] to the bounds.
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


def needs(backend: str) -> None:
    module, install = BACKENDS[backend]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}: {install}")


def drive_both(backend: str, name: str) -> None:
    needs(backend)
    task = short(name)
    try:
        environment = make_environment(backend, task, SEEDS)
    except ValueError as error:  # not every checkout of a benchmark has all of its large files
        if "Error opening file" not in str(error):
            raise
        pytest.skip(str(error))
    expected, step_by_hand, reset_by_hand = BY_HAND[backend](task)
    rng = np.random.default_rng(0)
    inputs = environment.reset()
    assert inputs.shape == (COPIES, *task.observation_shape) and inputs.dtype == task.observation_dtype
    np.testing.assert_array_equal(inputs, expected)
    lengths, ended = np.zeros(COPIES, int), 0
    for _ in range(2 * task.episode_limit + 5):
        actions = drawn(task, rng, COPIES)
        environment.send(actions)
        step = environment.recv()
        observed, rewards, terminated, truncated, successes = step_by_hand(actions)
        lengths += 1
        for ours, theirs in zip(step, (observed, rewards, terminated, truncated, successes), strict=False):
            np.testing.assert_array_equal(ours, theirs)
        assert step.observations.dtype == task.observation_dtype and np.isfinite(step.observations).all()
        assert step.rewards.dtype == np.float32
        assert step.terminated.dtype == step.truncated.dtype == step.successes.dtype == bool
        over = np.flatnonzero(terminated | truncated)
        assert (lengths[truncated] == task.episode_limit).all() and (lengths <= task.episode_limit).all()
        # Nothing of a reset, its reward least of all, is in the step; those that go on are not touched by it.
        assert (step.next_inputs is step.observations) == (len(over) == 0)
        following = observed.copy()
        for copy in over:
            following[copy] = reset_by_hand(int(copy))
            lengths[copy] = 0
            assert not np.array_equal(following[copy], observed[copy])
        np.testing.assert_array_equal(step.next_inputs, following)
        ended += len(over)
    assert ended >= 2 * COPIES
    environment.close()


@pytest.mark.parametrize(("backend", "name"), CASES)
def test_steps_are_those_of_the_library_driven_by_hand(backend: str, name: str) -> None:
    drive_both(backend, name)


@pytest.mark.long
@pytest.mark.parametrize(("backend", "name"), REST)
def test_steps_are_those_of_the_library_driven_by_hand_in_every_other_task(backend: str, name: str) -> None:
    drive_both(backend, name)


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("envpool", "dmc/walker-walk"),
        ("envpool", "metaworld/reach"),
        ("dm_control", "dmc/cartpole-swingup"),
        ("envpool", "atari/pong"),
        ("ale-py", "atari/pong"),
        *(case for case in CASES if case[0] in ("gymnasium", "humanoid-bench", "shadow-hand")),
    ],
)
def test_streams_follow_seeds_and_fast_forward_leads_back(backend: str, name: str) -> None:
    needs(backend)
    task = replace(short(name), episode_limit=10)
    if task.image:  # sticky actions are drawn by the emulator, which nothing leads back to where it was
        task = replace(task, options=tuple((dict(task.options) | {"repeat_action_probability": 0.0}).items()))
    environment, again, other = (make_environment(backend, task, seeds) for seeds in ([5, 6], [5, 6], [7, 8]))
    first = environment.reset()
    np.testing.assert_array_equal(first, again.reset())
    if not task.image:  # games begin alike but for the frames in which nothing is done
        assert len(np.unique(np.concatenate([first, other.reset()]).round(5), axis=0)) == 4, "streams are shared"
    rng = np.random.default_rng(0)
    resets = [1, 1]
    taken: list[list[np.ndarray]] = [[], []]
    for _ in range(24):
        actions = drawn(task, rng, 2)
        environment.send(actions)
        step = environment.recv()
        for copy in range(2):
            taken[copy].append(actions[copy])
            if step.terminated[copy] or step.truncated[copy]:
                resets[copy] += 1
                taken[copy].clear()
    fresh = make_environment(backend, task, [5, 6])
    shape = (-1, task.action_size)
    np.testing.assert_array_equal(
        fresh.fast_forward(resets, [np.array(one, np.float32).reshape(shape) for one in taken]), step.next_inputs
    )
    action = drawn(task, rng, 2)
    for one in (environment, fresh):
        one.send(action)
    np.testing.assert_array_equal(environment.recv().observations, fresh.recv().observations)


@pytest.mark.parametrize("game", GAMES)
def test_envpool_and_ale_py_play_the_same_game(game: str) -> None:
    """Every frame, reward and end of 1,500 steps over at least one whole episode, without what either draws itself.

    Of an episode's last frame a few pixels may differ: they do not agree on the frame before it, which shows in it too.
    """
    (made,) = resolve([f"atari/{game}"])
    options = asdict(AtariConfig(sticky=0.0, noop_max=1))
    one, other = (
        make_environment(backend, configured(made, **options), [3]) for backend in benchmarks()["atari"].backends
    )
    rng, ends = np.random.default_rng(0), 0
    np.testing.assert_array_equal(one.reset(), other.reset())
    for _ in range(1500):
        action = drawn(made, rng, 1)
        for environment in (one, other):
            environment.send(action)
        ours, theirs = one.recv(), other.recv()
        for left, right in zip(ours[1:], theirs[1:], strict=True):
            np.testing.assert_array_equal(left, right)
        differ = np.count_nonzero(ours.observations != theirs.observations)
        assert differ == 0 or (ours.terminated[0] and differ < 50)
        ends += int(ours.terminated[0])
    assert ends >= 1


def test_metaworld_shows_the_goal_draws_it_anew_and_tells_success() -> None:
    """A hand that goes to the goal it sees succeeds at Reach, in episodes of 200 steps that success does not end."""
    (task,) = resolve(["metaworld/reach"])
    environment = make_environment("envpool", task, [0, 1, 2])
    inputs = environment.reset()
    goals, succeeded = [inputs[:, 36:39].copy()], np.zeros(3, bool)
    for index in range(400):
        actions = np.zeros((3, 4), np.float32)
        actions[:, :3] = np.clip(10 * (inputs[:, 36:39] - inputs[:, :3]), -1, 1)
        environment.send(actions)
        step = environment.recv()
        succeeded |= step.successes
        assert not step.terminated.any() and step.truncated.all() == (index % 200 == 199)
        if step.truncated.any():
            goals.append(step.next_inputs[:, 36:39].copy())
        inputs = step.next_inputs
    assert succeeded.all()
    assert len(np.unique(np.concatenate(goals[:2]).round(4), axis=0)) == 6


def test_metaworld_has_the_tasks_of_the_paper() -> None:
    names = set(suites()["metaworld-50"])
    assert len(names) == 50 and {"metaworld/pick-place-wall", "metaworld/button-press-topdown"} < names


def test_a_task_of_gymnasium_tells_its_sizes_and_order() -> None:
    (task,) = resolve(["gymnasium/tests.support.counting:Counting-v0"])
    assert task.observation_keys == (("seed", 4), ("steps", 1))  # a Dict space sorts its keys
    assert (task.action_size, task.episode_limit, task.benchmark) == (2, 10, "gymnasium")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gymnasium/NoSuchThing-v1", "cannot be made"),
        ("gymnasium/no_such_module:Thing-v1", "there is no module no_such_module"),
        ("gymnasium/tests.support.counting:Several-v0", "MultiDiscrete"),
        ("gymnasium/Taxi-v4", "only a Box can be learned from"),
        ("gymnasium/tests.support.counting:Endless-v0", "max_episode_steps"),
    ],
)
def test_tasks_that_cannot_be_trained_on_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(UnknownNameError, match=reason):
        resolve([name])
