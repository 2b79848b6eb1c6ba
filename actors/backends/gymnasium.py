"""Environments of gymnasium's interface, one process, one copy after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.backends.actions import Taken, bounds, box_scaler, indices
from actors.backends.generators import Generators
from actors.backends.returned import BadEnvironment, CopyStep, Exited, Returned
from actors.benchmarks.benchmark import Task
from actors.benchmarks.gymnasium_tasks import make, said
from actors.closing import close_all
from actors.environments import Step, after_resets

TRIED_STEPS = 20  # of an episode, to see whether it can be made again


class Copy:
    """One environment, which draws from generators of its own and whose returns are checked.

    The seed is given to its first reset, as gymnasium has it. With `exact` it notes at every reset what its generators
    were before it. Methods raise BadEnvironment for returns that mean nothing, Exited for sys.exit, and
    whatever an environment raises.
    """

    def __init__(self, task: Task, seed: int, environment: Any, exact: bool = False) -> None:
        self.environment = environment
        self.name = task.name
        self.seed: int | None = seed
        self.exact = exact
        self.generators = Generators(seed, exact)
        self.begun: dict[str, Any] = {}
        self.returned = Returned(task, environment.observation_space)
        space = environment.action_space
        self.scale: Taken = indices if task.num_actions else box_scaler(space)
        self.first = int(space.start) if task.num_actions else None
        self.shape = space.shape

    def taken(self, actions: np.ndarray) -> list[Any]:
        """What copies like this one are to be given, from (copies, action) float32; new arrays, which they may keep."""
        if self.first is not None:
            return [self.first + index for index in self.scale(actions).tolist()]
        scaled = self.scale(actions)
        return [row.reshape(self.shape) for row in (scaled.copy() if scaled is actions else scaled)]

    def reset(self, begun: dict[str, Any] | None = None) -> np.ndarray:
        """The observation (observation_size,). `begun` is what an equal copy drew from when it was reset here."""
        seed, self.seed = self.seed, None
        if begun:
            self.generators.load_state(self.environment, begun)
        if self.exact:
            self.begun = self.generators.state(self.environment)
        try:
            with self.generators:
                found = self.environment.reset(seed=seed)
        except SystemExit as error:
            raise Exited(self.name, error) from error
        return self.returned.reset(found)

    def step(self, action: Any) -> CopyStep:
        """Make a step with what `taken` gave."""
        try:
            with self.generators:
                found = self.environment.step(action)
        except SystemExit as error:
            raise Exited(self.name, error) from error
        return self.returned.step(found)


def make_copy(task: Task, seed: int, exact: bool = False, film: bool = False) -> Copy:
    """A copy of a task; what its making draws, it draws from generators of its own too."""
    options = {"max_episode_steps": task.episode_limit} | dict(task.options)
    if film:
        options["render_mode"] = "rgb_array"
    with Generators(seed, exact=True):
        environment = make(task.library_id, **options)
    return Copy(task, seed, environment, exact)


def make_copies(task: Task, seeds: Sequence[int], exact: bool = False, film: bool = False) -> list[Copy]:
    """A copy a seed. If one cannot be made or differs, all are closed."""
    made: list[Copy] = []
    try:
        for seed in seeds:
            made.append(make_copy(task, int(seed), exact, film))
            check_alike(task, made[-1], made[0])
    except BaseException:
        close_copies(made)
        raise
    return made


def close_copies(made: Sequence[Copy]) -> None:
    close_all(one.environment for one in made)


def check_alike(task: Task, one: Copy, first: Copy) -> None:
    """Raises BadEnvironment for a copy whose actions or observations differ from those of the first, or of the task:
    all copies act with one policy, which gives their actions in one array."""
    taken = bounds(one.environment.action_space)
    expected = task.bounds or bounds(first.environment.action_space)
    if taken != expected or one.shape != first.shape:
        raise BadEnvironment(
            f"{task.name}: the actions of one copy are {taken}, of shape {one.shape}, and those of another {expected}, "
            f"of shape {first.shape}: give all copies the same action_space"
        )
    shown, seen = one.returned.shapes, first.returned.shapes
    if shown != seen:
        raise BadEnvironment(
            f"{task.name}: one copy observes arrays of shape {in_words(shown)}, and another {in_words(seen)}: give all "
            f"copies the same observation_space"
        )


def in_words(shapes: dict[str, tuple[int, ...]]) -> str:
    """Lists the shapes of all keys."""
    return ", ".join(f"{shape} for {key}" if key else str(shape) for key, shape in shapes.items())


def is_led_back(task: Task, seed: int) -> bool:
    """Whether a fresh copy can be brought to where another one is, as far as two short episodes show.

    It makes the last of them only, with the other's actions, and is to observe and to be paid the same. Raises
    BadEnvironment for a task that cannot be stepped so far, with the reason.
    """
    made: list[Copy] = []
    try:
        made = make_copies(task, [seed, seed], exact=True)
        return are_alike(task, seed, *made)
    except BadEnvironment:
        raise
    except Exited as error:
        raise BadEnvironment(str(error)) from error
    except Exception as error:  # whatever it raises
        raise BadEnvironment(f"{task.name} cannot be stepped: {said(error)}") from error
    finally:
        close_copies(made)


def are_alike(task: Task, seed: int, one: Copy, other: Copy) -> bool:
    """Whether one, led through two episodes, and the other, led through the last of them, give the same in that."""
    rng = np.random.default_rng(seed)
    if task.num_actions:
        drawn = rng.integers(0, task.num_actions, (TRIED_STEPS, 1)).astype(np.float32)
    else:
        drawn = rng.uniform(-1.0, 1.0, (TRIED_STEPS, task.action_size)).astype(np.float32)
    one.reset()
    episode(one, drawn)
    first = one.reset()
    other.reset()
    again = other.reset(one.begun)
    same = np.array_equal(first, again, equal_nan=True)
    return same and np.array_equal(episode(one, drawn[::-1]), episode(other, drawn[::-1]), equal_nan=True)


def episode(one: Copy, actions: np.ndarray) -> np.ndarray:
    """What a copy gives for these actions, or until its episode ends: (steps, observation and the rest)."""
    steps: list[np.ndarray] = []
    for action in one.taken(actions):
        step = one.step(action)
        steps.append(np.append(step.observation, [step.reward, step.terminated, step.truncated]))
        if step.terminated or step.truncated:
            break
    return np.stack(steps)


class GymnasiumEnvironment:
    """Steps in `recv`, on the caller's thread. With `exact`, copies can be led back whatever they draw."""

    def __init__(self, task: Task, seeds: Sequence[int], exact: bool = False, film: bool = False) -> None:
        self.task = task
        self.copies = len(seeds)
        self.made = make_copies(task, seeds, exact, film)
        self.scale = self.made[0].scale
        self.actions: list[Any] = []

    def reset(self) -> np.ndarray:
        return np.stack([one.reset() for one in self.made])

    def send(self, actions: np.ndarray) -> None:
        self.actions = self.made[0].taken(actions)

    def recv(self) -> Step:
        observations = np.empty((self.copies, self.task.observation_size), np.float32)
        rewards = np.empty(self.copies, np.float32)
        terminated, truncated, successes = (np.zeros(self.copies, bool) for _ in range(3))
        for copy, (one, action) in enumerate(zip(self.made, self.actions, strict=True)):
            observations[copy], rewards[copy], terminated[copy], truncated[copy], successes[copy] = one.step(action)
        next_inputs = after_resets(observations, terminated | truncated, lambda copy: self.made[copy].reset())
        return Step(observations, rewards, terminated, truncated, successes, next_inputs)

    def restart(self, copies: np.ndarray) -> np.ndarray:
        return np.stack([self.made[copy].reset() for copy in copies.tolist()])

    def fast_forward(
        self, resets: Sequence[int], actions: Sequence[np.ndarray], begun: Sequence[Any] = ()
    ) -> np.ndarray:
        inputs = np.zeros((self.copies, self.task.observation_size), np.float32)
        for copy, one in enumerate(self.made):
            for _ in range(resets[copy] - 1):
                one.reset()
            inputs[copy] = one.reset(begun[copy] if begun else None)
            for action in one.taken(actions[copy]):
                inputs[copy] = one.step(action).observation
        return inputs

    def begun(self) -> list[Any]:
        return [one.begun for one in self.made]

    def frame(self) -> np.ndarray:
        """What the first copy looks like: (height, width, 3) uint8."""
        return np.asarray(self.made[0].environment.render())

    def close(self) -> None:
        close_copies(self.made)
