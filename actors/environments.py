"""The one interface over all environment libraries: N copies of a task, stepped together.

What differs between libraries ends here: key order, dtypes, action bounds, when a reset happens. Observations are
float32 and flat, or images of bytes; rewards float32; actions in [-1, 1] and as long as the task's action size, or of
one number, the action's index, where they are discrete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from actors.backends.actions import Taken
from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import backend_of, benchmark_of

COPY_INDICES = 1 << 20  # of copies over all actors of a run


class Step(NamedTuple):
    """What one step of every copy gave. Nothing of a reset is in here but `next_inputs`."""

    observations: np.ndarray  # (copies, *observation_shape); where an episode ended, its true last observation
    rewards: np.ndarray  # (copies,) float32
    terminated: np.ndarray  # (copies,) bool: the state is terminal, there is no value beyond it
    truncated: np.ndarray  # (copies,) bool: the episode was cut by its limit
    successes: np.ndarray  # (copies,) bool; all False in tasks that know no success
    next_inputs: np.ndarray  # like observations: what to act on next, the reset observation where one ended


class Environment(Protocol):
    """Copies of one task, each with its own seed. `send` and `recv` let several pools step at the same time."""

    task: Task
    copies: int
    scale: Taken  # an ActionScaler where actions are continuous

    def reset(self) -> np.ndarray:
        """Begin: (copies, *observation_shape). Called once, before the first step."""

    def send(self, actions: np.ndarray) -> None:
        """Start stepping all copies with (copies, action) float32; the array is not read after this returns."""

    def recv(self) -> Step:
        """Wait for that step. Copies whose episode ended are reset already, so every step is a transition of each."""

    def restart(self, copies: np.ndarray) -> np.ndarray:
        """Reset these copies, given by their numbers, in mid-episode: (len(copies), *observation_shape). No step may be
        under way."""

    def fast_forward(
        self, resets: Sequence[int], actions: Sequence[np.ndarray], begun: Sequence[Any] = ()
    ) -> np.ndarray:
        """Bring freshly made copies to where others were, for an exact resume; instead of `reset`.

        Copy i is reset resets[i] times, then stepped through actions[i] (steps, action). Returns what to act on next.
        `begun` is what the others' method of this name gave.
        """

    def begun(self) -> list[Any]:
        """What each copy drew from when its last reset began, of one that was made `exact`; empty where its seed and
        the number of its resets say that."""

    def close(self) -> None: ...


class Filmable(Environment, Protocol):
    """One that can be looked at."""

    def frame(self) -> np.ndarray:
        """What the first copy looks like: (height, width, 3) uint8."""


def make_filmable(task: Task, seed: int) -> Filmable:
    """A copy of the task in its usual backend, which renders."""
    backend = backend_of(task, "")
    if backend == "envpool":
        from actors.backends.envpool import EnvpoolEnvironment

        return EnvpoolEnvironment(task, [seed], film=True)
    from actors.backends.gymnasium import GymnasiumEnvironment

    if backend == "dm_control":
        from actors.backends.dm_control import DmControlEnvironment

        return DmControlEnvironment(task, [seed])
    benchmark_of(task.name).prepare()
    return GymnasiumEnvironment(task, [seed], film=True)


def make_environment(
    preferred: str, task: Task, seeds: Sequence[int], threads: int = 1, exact: bool = False
) -> Environment:
    """One copy a seed, in the preferred backend if that runs the task. `threads` step them where that has threads.

    `exact`: the copies may have to be led back to where they are, by `fast_forward` of others.
    """
    backend = backend_of(task, preferred)
    if backend == "envpool":
        from actors.backends.envpool import EnvpoolEnvironment

        return EnvpoolEnvironment(task, seeds, threads)
    if backend == "dm_control":
        from actors.backends.dm_control import DmControlEnvironment

        return DmControlEnvironment(task, seeds)
    if backend == "ale-py":
        from actors.backends.ale import AleEnvironment

        return AleEnvironment(task, seeds)
    from actors.backends.gymnasium import GymnasiumEnvironment

    benchmark_of(task.name).prepare()
    return GymnasiumEnvironment(task, seeds, exact)


def copy_seed(run_seed: int, stream: int, index: int) -> int:
    """A seed in [0, 2^31 - 1) that no other (stream, index) of the run has: index < 2^20, stream < 2^11.

    envpool gives copy k of a pool seed + k, so neighbouring pools would share streams; here every copy gets its own.
    """
    if not 0 <= index < COPY_INDICES:
        raise ValueError(f"copy index {index} is outside [0, 2^20)")
    return (run_seed * 1_000_003 + (stream % 2047 << 20) + index) % (2**31 - 1)


def after_resets(observations: np.ndarray, ended: np.ndarray, reset: Callable[[int], np.ndarray]) -> np.ndarray:
    """What to act on next: the same array, or if copies `ended` (copies,) bool a new one with their `reset`."""
    if not ended.any():
        return observations
    following = observations.copy()
    for copy in np.flatnonzero(ended).tolist():
        following[copy] = reset(copy)
    return following
