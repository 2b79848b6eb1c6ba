"""Tests of every backend and benchmark: transitions equal those of the library driven by hand, bit for bit."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, replace

import numpy as np
import pytest

from actors.benchmarks.atari import configured
from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import BACKENDS, UnknownNameError, all_tasks, benchmarks, resolve, suites
from actors.environments import make_environment
from cluster.config.schema import AtariConfig, Config, MetaworldConfig
from cluster.plan.plan import make_plan
from tests.support.by_hand import BY_HAND, COPIES, LIMIT, SEEDS

FIVE = ["cartpole-swingup", "cheetah-run", "walker-walk", "humanoid-run", "dog-run"]
TEN = """
reach pick-place door-open drawer-close button-press peg-insert-side window-open sweep-into coffee-pull soccer
"""
PLAYGROUND = ["PandaPickCube", "Go1JoystickFlatTerrain", "LeapCubeReorient", "SpotGetup", "H1JoystickGaitTracking"]
ROBOTICS = ["FetchReach", "HandManipulateBlock", "AdroitHandDoor", "PointMaze_UMaze", "FrankaKitchen"]
GYMNASIUM = ["Pendulum-v1", "Hopper-v5", "CartPole-v1", "tests.support.counting:Counting-v0"]
GAMES = ["pong", "breakout", "ms-pacman"]
CASES = [
    *(("envpool", f"dmc/{name}") for name in FIVE),
    *(("dm_control", f"dmc/{name}") for name in FIVE[:3]),
    ("dm_control", "dmc-extra/reacher-three_easy"),
    *(("envpool", f"metaworld/{name}") for name in TEN.split()),
    *(("envpool", f"playground/{name}") for name in PLAYGROUND),
    *(("envpool", f"robotics/{name}") for name in ROBOTICS),
    *(("envpool", name) for name in suites()["myo-10"][::2]),
    *((backend, f"atari/{name}") for name in GAMES for backend in benchmarks()["atari"].backends),
    *(("gymnasium", f"gymnasium/{name}") for name in GYMNASIUM),
    *(("humanoid-bench", f"humanoid-bench/{name}") for name in ("h1-walk", "h1hand-sit_hard", "h1hand-cube")),
    ("shadow-hand", "shadow-hand/cube"),
]
USUAL = [
    (benchmarks()[task.benchmark].backends[0], name)
    for name, task in all_tasks().items()
    if task.benchmark not in ("metaworld", "atari", "myosuite")
]
# Every tenth task of MyoSuite in the order of their names: each of its bodies and conditions is among them.
MYOSUITE = [("envpool", name) for name in sorted(benchmarks()["myosuite"].tasks)[::10]]
REST = [case for case in (*USUAL, *MYOSUITE) if case not in CASES]


def short(name: str) -> Task:
    (task,) = resolve([name])
    return replace(task, episode_limit=min(LIMIT, task.episode_limit))


def drawn(task: Task, rng: np.random.Generator, copies: int) -> np.ndarray:
    """Draw random actions for copies of a task."""
    if task.num_actions:
        return rng.integers(0, task.num_actions, (copies, 1)).astype(np.float32)
    return rng.uniform(-1, 1, (copies, task.action_size)).astype(np.float32)


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
        # The step holds nothing of a reset, not even its reward. A reset does not change the other copies.
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
        ("envpool", "playground/PandaPickCube"),
        *(("envpool", f"robotics/{name}") for name in ROBOTICS[:3]),
        ("envpool", "atari/pong"),
        ("ale-py", "atari/pong"),
        *(case for case in CASES if case[0] in ("gymnasium", "humanoid-bench", "shadow-hand")),
    ],
)
def test_streams_follow_seeds_and_fast_forward_leads_back(backend: str, name: str) -> None:
    needs(backend)
    task = replace(short(name), episode_limit=10)
    if task.image:  # the emulator draws sticky actions and cannot be led back to an earlier state
        task = replace(task, options=tuple((dict(task.options) | {"repeat_action_probability": 0.0}).items()))
    environment, again, other = (make_environment(backend, task, seeds) for seeds in ([5, 6], [5, 6], [7, 8]))
    first = environment.reset()
    np.testing.assert_array_equal(first, again.reset())
    if not task.image:  # games begin alike except for the number of frames without action
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


KNOWN = [
    *(
        "playground/PandaRobotiqPushCube",
        "playground/Go1Getup",
        "playground/PandaPickCube",
        "playground/PandaPickCubeCartesian",
        "robotics/FrankaKitchen",
    ),
    *("myosuite/myoHandReachRandom", "myosuite/MyoHandAirplaneRandom", "myosuite/MyoHandAirplaneFixed"),
]
OTHERS = [name for suite in ("playground-locomotion", "playground-manipulation") for name in suites()[suite]]


@pytest.mark.parametrize("name", [*KNOWN, *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)])
def test_it_is_known_which_tasks_cannot_be_led_back(name: str) -> None:
    """A fresh copy is led to the first state of the third episode, and to one in its middle."""
    (task,) = resolve([name])
    task = replace(task, episode_limit=45)
    environment = make_environment("envpool", task, [5])
    rng, taken, resets, found = np.random.default_rng(0), list[np.ndarray](), 1, list[bool]()
    environment.reset()
    while len(found) < 2:
        action = drawn(task, rng, 1)
        environment.send(action)
        step = environment.recv()
        taken.append(action[0])
        if step.terminated[0] or step.truncated[0]:
            resets, taken = resets + 1, []
        if (resets > 2 and len(taken) == (30 if found else 0)) or resets > 8:
            fresh = make_environment("envpool", task, [5])
            reached = fresh.fast_forward([resets], [np.array(taken, np.float32).reshape(-1, task.action_size)])
            found.append(np.array_equal(reached, step.next_inputs))
    assert all(found) == task.repeatable


@pytest.mark.parametrize("game", GAMES)
def test_envpool_and_ale_py_play_the_same_game(game: str) -> None:
    """Frames, rewards and ends of 1,500 steps are equal. They include a whole episode, and neither backend draws here.

    An episode's last frame may differ in a few pixels: it also shows the frame before, where the backends disagree.
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
    """At Reach, a hand that moves to the observed goal succeeds. Success does not end an episode of 200 steps."""
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


def test_metaworld_with_frozen_goals_begins_every_episode_alike() -> None:
    """In pick-place, the object and the goal of all copies, of all episodes and of an earlier run's state are the same.

    Steps equal the steps of a pool with that seed."""
    config = Config(tasks=("metaworld/pick-place", "dmc/walker-walk"), metaworld=MetaworldConfig("frozen"), seed=3)
    task, other = make_plan(config).tasks
    assert task.fixed_start is not None and other.fixed_start is None
    task = replace(task, episode_limit=12)
    environment = make_environment("envpool", task, [5, 6, 7], threads=2)
    alone = make_environment("envpool", replace(task, fixed_start=None), [task.fixed_start or 0])
    first = environment.reset()
    np.testing.assert_array_equal(first, np.repeat(alone.reset(), 3, axis=0))
    rng = np.random.default_rng(0)
    taken: list[np.ndarray] = []
    for index in range(30):
        actions = drawn(task, rng, 3)
        environment.send(actions)
        step = environment.recv()
        taken.append(actions)
        assert step.truncated.all() == (index % 12 == 11)
        if step.truncated.all():
            np.testing.assert_array_equal(step.next_inputs, first)
            taken.clear()
        if index < 12:
            alone.send(actions[:1])
            np.testing.assert_array_equal(alone.recv().observations, step.observations[:1])
    fresh = make_environment("envpool", task, [5, 6, 7])
    reached = fresh.fast_forward([3, 3, 3], list(np.stack(taken, axis=1)))
    np.testing.assert_array_equal(reached, step.next_inputs)
    np.testing.assert_array_equal(environment.restart(np.array([1])), first[:1])
    seeds = {make_plan(replace(config, seed=seed)).tasks[0].fixed_start for seed in range(4)}
    assert len(seeds) == 4
