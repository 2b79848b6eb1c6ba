"""Environments of gymnasium's interface, in one process, one copy after another."""

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

TRIED_STEPS = 20  # steps of an episode that show whether it can be reproduced


class Copy:
    """One environment with its own random generators. Its return values are checked.

    The first reset gets the seed, as usual in gymnasium. With `exact`, every reset first notes the state of the
    generators. Methods raise BadEnvironment for return values without a meaning, Exited for sys.exit, and any error
    that the environment raises.
    """

    def __init__(self, task: Task, seed: int, environment: Any, exact: bool = False) -> None:
        self.environment = environment
        self.name = task.name
        self.repeat = task.action_repeat
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
        """Return the actions for copies like this one, from (copies, action) float32. Copies may keep the arrays, which
        are new."""
        if self.first is not None:
            return [self.first + index for index in self.scale(actions).tolist()]
        scaled = self.scale(actions)
        return [row.reshape(self.shape) for row in (scaled.copy() if scaled is actions else scaled)]

    def reset(self, begun: dict[str, Any] | None = None) -> np.ndarray:
        """Reset, and return the observation (*observation_shape,). `begun` is the state of an equal copy's generators
        before the same reset."""
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
        """Make a step with an action that `taken` returned, which is held for the task's `action_repeat`."""
        step = self._once(action)
        for _ in range(self.repeat - 1):
            if step.terminated or step.truncated:
                break
            more = self._once(action)
            step = more._replace(reward=step.reward + more.reward, success=step.success or more.success)
        return step

    def _once(self, action: Any) -> CopyStep:
        try:
            with self.generators:
                found = self.environment.step(action)
        except SystemExit as error:
            raise Exited(self.name, error) from error
        return self.returned.step(found)


def make_copy(task: Task, seed: int, exact: bool = False, film: bool = False) -> Copy:
    """Make a copy of a task. Random numbers that are drawn meanwhile come from separate generators too."""
    options = {"max_episode_steps": task.environment_limit} | dict(task.options)
    if film:
        options["render_mode"] = "rgb_array"
    with Generators(seed, exact=True):
        environment = make(task.library_id, **options)
    return Copy(task, seed, environment, exact)


def make_copies(task: Task, seeds: Sequence[int], exact: bool = False, film: bool = False) -> list[Copy]:
    """Make one copy a seed. If a copy cannot be made or differs from the first, all are closed."""
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
    """Raise BadEnvironment if a copy's actions or observations differ from those of the first copy, or of the task. All
    copies act with one policy, which gives their actions in one array."""
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
    """List the shapes of all keys."""
    return ", ".join(f"{shape} for {key}" if key else str(shape) for key, shape in shapes.items())


def is_led_back(task: Task, seed: int) -> bool:
    """Whether a fresh copy can be brought to the state of another copy, as far as two short episodes show.

    The fresh copy plays only the second episode, with the other copy's actions. It must get the same observations and
    rewards. Raises BadEnvironment, with the reason, for a task that cannot be stepped.
    """
    made: list[Copy] = []
    try:
        made = make_copies(task, [seed, seed], exact=True)
        return are_alike(task, seed, *made)
    except BadEnvironment:
        raise
    except Exited as error:
        raise BadEnvironment(str(error)) from error
    except Exception as error:  # an environment may raise anything
        raise BadEnvironment(f"{task.name} cannot be stepped: {said(error)}") from error
    finally:
        close_copies(made)


def are_alike(task: Task, seed: int, one: Copy, other: Copy) -> bool:
    """Whether `one`, which plays two episodes, and `other`, which plays only the second, get the same in the second."""
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
    """Return a copy's results for these actions, at most until its episode ends: (steps, size + 3)."""
    steps: list[np.ndarray] = []
    for action in one.taken(actions):
        step = one.step(action)
        steps.append(np.append(step.observation, [step.reward, step.terminated, step.truncated]))
        if step.terminated or step.truncated:
            break
    return np.stack(steps)


class GymnasiumEnvironment:
    """Copies that are stepped in `recv`, on the caller's thread. With `exact`, `fast_forward` of new copies can
    reproduce their random draws."""

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
        observations = np.empty((self.copies, *self.task.observation_shape), np.float32)
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
        inputs = np.zeros((self.copies, *self.task.observation_shape), np.float32)
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
        """Return a picture of the first copy, (height, width, 3) uint8."""
        return np.asarray(self.made[0].environment.render())

    def close(self) -> None:
        close_copies(self.made)
