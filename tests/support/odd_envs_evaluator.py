"""Environments that fail, hang or never end where a test asks for it; importing this registers them.

A test asks with a file in the folder $FAULTS, named <fault>-<where>-<process>, such as hang-step-Evaluator: `raise`,
`once` (which takes the file away) or `hang`, in `made` or `step`, in processes with this word in their command line.
Where several apply, one that raises comes before one that hangs.
One that hangs leaves a file, `hung`, beside that folder.
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
    """What was asked for."""
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
    """Stay in a library for ever, which no signal brings back to Python, when a file says so."""
    note.touch()
    mutex = ctypes.create_string_buffer(128)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


class Faulty(gymnasium.Env[np.ndarray, np.ndarray]):
    """Twenty steps an episode."""

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
    """A copy takes 10 MB. Every one that is made and closed leaves a line in the file $ALIVE."""

    def __init__(self) -> None:
        super().__init__()
        # Memory of its own: malloc may give it what others have left.
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
        """Some episodes have ten steps less than others."""
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
    """Never ends: it keeps its limit to itself."""

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
