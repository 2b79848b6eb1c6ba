"""Environments that fail, hang or never end where a test asks for it. Importing this registers them.

A test asks with a file in the folder $FAULTS, named <fault>-<where>-<process>, such as hang-step-Evaluator. Faults are
`raise`, `once` (raise, and remove the file) and `hang`. They happen when an environment is made (`made`) or in a step
(`step`), in processes with the word <process> in their command line. If several apply, raising comes before hanging.
An environment that hangs first creates the file `hung` beside the folder.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


def fail(where: str) -> None:
    """Fail or hang if a file in $FAULTS asks for it here."""
    folder = os.environ.get("FAULTS")
    for file in sorted(Path(folder).iterdir(), reverse=True) if folder else ():
        fault, at, process = file.name.split("-")
        if at != where or process.encode() not in Path("/proc/self/cmdline").read_bytes():
            continue
        if fault == "hang":
            hang(file.parent.parent / "hung")
        if fault == "once":
            file.unlink()
        raise ZeroDivisionError("the simulator lost its connection")


def hang(note: Path) -> None:
    """Create the file `note`, then block for ever in a C library, so that no signal handler of Python runs."""
    note.touch()
    mutex = ctypes.create_string_buffer(128)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


class Faulty(gymnasium.Env[np.ndarray, np.ndarray]):
    """An environment of twenty steps an episode, in which a test can cause faults."""

    observation_space: Any = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space: Any = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self) -> None:
        self.count = 0
        fail("made")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        self.phase = float(self.np_random.random())
        return self._observed(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        fail("step")
        self.count += 1
        return self._observed(), float(-np.square(action).sum()), self.count >= 20, False, {}

    def _observed(self) -> np.ndarray:
        return np.array([self.count / 20, np.sin(self.count + self.phase), 1.0], np.float32)


class Heavy(Faulty):
    """A copy takes 10 MB. It appends a line to the file $ALIVE when it is made, and another when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        # Its own mapping: malloc may reuse memory that other copies have freed.
        self.held = mmap.mmap(-1, 10_000_000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.held.write(b"1" * len(self.held))
        self._note("1")

    def close(self) -> None:
        self._note("-1")

    def _note(self, change: str) -> None:
        with open(os.environ["ALIVE"], "a") as file:
            file.write(f"{change}\n")


class Growing(Heavy):
    """A copy takes its 10 MB in the fifth step of its first episode."""

    def __init__(self) -> None:
        Faulty.__init__(self)
        self.held: Any = None
        self._note("1")

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take memory if it is due. About half of the episodes end after ten steps, the others after twenty."""
        if self.count == 4 and self.held is None:
            self.held = mmap.mmap(-1, 10_000_000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self.held.write(b"1" * len(self.held))
        observed, reward, over, cut, info = super().step(action)
        return observed, reward, over or (self.count == 10 and self.phase < 0.5), cut, info

    def close(self) -> None:
        super().close()
        if self.held is not None:
            self.held.close()


class Unlimited(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """Never ends an episode: it hides the time limit."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        observed, reward, _, _, info = self.env.step(action)
        return observed, reward, False, False, info


WITHOUT_END = gymnasium.envs.registration.WrapperSpec("Unlimited", "tests.support.odd_envs_evaluator:Unlimited", {})
gymnasium.register("Faulty-v0", "tests.support.odd_envs_evaluator:Faulty", max_episode_steps=30)
gymnasium.register("Heavy-v0", "tests.support.odd_envs_evaluator:Heavy", max_episode_steps=30)
gymnasium.register("Weighty-v0", "tests.support.odd_envs_evaluator:Heavy", max_episode_steps=30)
gymnasium.register("Growing-v0", "tests.support.odd_envs_evaluator:Growing", max_episode_steps=30)
gymnasium.register("Waxing-v0", "tests.support.odd_envs_evaluator:Growing", max_episode_steps=30)
gymnasium.register(
    "Unlimited-v0", "tests.support.odd_envs_evaluator:Faulty", max_episode_steps=30, additional_wrappers=(WITHOUT_END,)
)
