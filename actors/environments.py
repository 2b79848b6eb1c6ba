"""The one interface to all environment libraries: N copies of a task, stepped together.

It hides how libraries differ in key order, dtypes, action bounds and the time of a reset. Observations are flat
float32, or images of uint8. Rewards are float32. Continuous actions are in [-1, 1] and as long as the task's action
size. A discrete action is one number, the action's index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from actors.backends.actions import Taken
from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import backend_of, benchmark_of

COPY_INDICES = 1 << 20  # most copies over all actors of a run


class Step(NamedTuple):
    """Results of one step of every copy. Only `next_inputs` hold observations of a reset."""

    observations: np.ndarray  # (copies, *observation_shape); where an episode ended, its true last observation
    rewards: np.ndarray  # (copies,) float32
    terminated: np.ndarray  # (copies,) bool: the state is terminal, with no value beyond it
    truncated: np.ndarray  # (copies,) bool: the episode was cut by its limit
    successes: np.ndarray  # (copies,) bool; all False in tasks without a success
    next_inputs: np.ndarray  # like observations: act on these next; the reset observation where an episode ended
    # (copies,) bool: copies for which this was no transition, but a reset or the rest of a dropped episode; None for
    # none. Their numbers have no meaning. Only vectorised simulators have such steps.
    idle: np.ndarray | None = None


class Environment(Protocol):
    """Copies of one task, each with its own seed. `send` and `recv` let several pools step at the same time."""

    task: Task
    copies: int
    scale: Taken  # an ActionScaler where actions are continuous

    def reset(self) -> np.ndarray:
        """Reset all copies; return (copies, *observation_shape). Called once, before the first step."""

    def send(self, actions: np.ndarray) -> None:
        """Start to step all copies with (copies, action) float32. The array is not read after this returns."""

    def recv(self) -> Step:
        """Wait for the step and return it. Copies whose episode ended are already reset, so every step is a transition
        of every copy that is not `idle`."""

    def restart(self, copies: np.ndarray) -> np.ndarray:
        """Reset the copies with these numbers in mid-episode, or make them `idle` until they are reset. Return
        (len(copies), *observation_shape). No step may be under way."""

    def fast_forward(
        self, resets: Sequence[int], actions: Sequence[np.ndarray], begun: Sequence[Any] = ()
    ) -> np.ndarray:
        """Bring freshly made copies to the state of earlier copies, for an exact resume. It replaces `reset`.

        Copy i is reset resets[i] times, then stepped through actions[i] (steps, action). Return the inputs to act on
        next. `begun` is what `begun` of the earlier copies returned.
        """

    def begun(self) -> list[Any]:
        """Return the states of each copy's random generators when its last reset began, for copies made with `exact`.
        It is empty if the seed and the number of resets determine them."""

    def close(self) -> None: ...


class Filmable(Environment, Protocol):
    """An environment that can be rendered."""

    def frame(self) -> np.ndarray:
        """Return a picture of the first copy, (height, width, 3) uint8."""


def make_filmable(task: Task, seed: int) -> Filmable:
    """Make one copy of the task in its usual backend, with rendering."""
    backend = backend_of(task, "")
    if backend == "envpool" and task.fixed_start is not None:
        from actors.backends.fixed_start import FixedStartEnvironment

        return FixedStartEnvironment(task, [seed], film=True)
    if backend == "envpool":
        from actors.backends.envpool import EnvpoolEnvironment

        return EnvpoolEnvironment(task, [seed], film=True)
    if backend == "vector":
        from actors.backends.vector import VectorEnvironment

        return VectorEnvironment(task, [seed], film=True)
    from actors.backends.gymnasium import GymnasiumEnvironment

    if backend == "dm_control":
        from actors.backends.dm_control import DmControlEnvironment

        return DmControlEnvironment(task, [seed])
    benchmark_of(task.name).prepare()
    return GymnasiumEnvironment(task, [seed], film=True)


def make_environment(
    preferred: str, task: Task, seeds: Sequence[int], threads: int = 1, exact: bool = False
) -> Environment:
    """Make one copy a seed, in the preferred backend if it runs the task. `threads` step them if it has threads.

    `exact`: later copies may have to be brought to the state of these copies by `fast_forward`.
    """
    backend = backend_of(task, preferred)
    if backend == "envpool" and task.fixed_start is not None:
        from actors.backends.fixed_start import FixedStartEnvironment

        return FixedStartEnvironment(task, seeds, threads)
    if backend == "envpool":
        from actors.backends.envpool import EnvpoolEnvironment

        return EnvpoolEnvironment(task, seeds, threads)
    if backend == "dm_control":
        from actors.backends.dm_control import DmControlEnvironment

        return DmControlEnvironment(task, seeds)
    if backend == "ale-py":
        from actors.backends.ale import AleEnvironment

        return AleEnvironment(task, seeds)
    if backend == "vector":
        from actors.backends.vector import VectorEnvironment

        return VectorEnvironment(task, seeds)
    from actors.backends.gymnasium import GymnasiumEnvironment

    benchmark_of(task.name).prepare()
    return GymnasiumEnvironment(task, seeds, exact)


def copy_seed(run_seed: int, stream: int, index: int) -> int:
    """Return a seed in [0, 2^31 - 1) that no other (stream, index) of the run has: index < 2^20, stream < 2^11.

    By itself, envpool gives copy k of a pool the seed `seed + k`, so neighbouring pools would share streams. Here every
    copy gets its own seed.
    """
    if not 0 <= index < COPY_INDICES:
        raise ValueError(f"copy index {index} is outside [0, 2^20)")
    return (run_seed * 1_000_003 + (stream % 2047 << 20) + index) % (2**31 - 1)


def after_resets(observations: np.ndarray, ended: np.ndarray, reset: Callable[[int], np.ndarray]) -> np.ndarray:
    """Return the inputs to act on next: the same array, or if copies `ended` (copies,) bool, a new array with what
    `reset` returns for them."""
    if not ended.any():
        return observations
    following = observations.copy()
    for copy in np.flatnonzero(ended).tolist():
        following[copy] = reset(copy)
    return following
