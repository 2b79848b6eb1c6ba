"""A task, and a benchmark: a set of tasks with how they are run, scored and grouped. Each benchmark is one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Task:
    """One environment. `name` is benchmark/name.

    Attributes:
        observation_keys: (key, size) in the order they are flattened; the key of a single array is "".
        episode_limit: steps after which an episode is cut.
        library_id: what the benchmark's first backend calls it.
        options: further arguments of that backend's `make`.
        success_key: what that backend's info calls success; "" in tasks that know none.
        num_actions: how many there are, where actions are discrete: an action is then one number, its index.
        image: (frames, height, width) of observations that are stacks of frames of bytes.
        bounds: the bounds of its actions, in words; "" where only the library knows them.
    """

    name: str
    observation_keys: tuple[tuple[str, int], ...]
    action_size: int
    episode_limit: int
    library_id: str
    options: tuple[tuple[str, Any], ...] = ()
    success_key: str = ""
    num_actions: int = 0
    image: tuple[int, ...] = ()
    bounds: str = ""

    @property
    def benchmark(self) -> str:
        return self.name.split("/", 1)[0]

    @property
    def short_name(self) -> str:
        return self.name.split("/", 1)[1]

    @property
    def observation_size(self) -> int:
        return sum(size for _, size in self.observation_keys)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.image or (self.observation_size,)

    @property
    def observation_dtype(self) -> str:
        return "uint8" if self.image else "float32"


def no_score(task: Task, episode_return: float, success: float) -> None:
    """There is none that the community has agreed on."""


def success_rate(task: Task, episode_return: float, success: float) -> float:
    """Whether the episode had success at some step, or the share of those that had."""
    return float(success)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark. The file of one of another project registers it by an entry point of the group `brc.benchmarks`.

    Attributes:
        name: what its tasks' names begin with.
        backends: those of actors/backends/ that run it, the usual one first.
        tasks: by their full names.
        suites: named lists of these.
        score: (task, return, success) -> the score of an episode, or of means over episodes; None where there is none.
        by_success: whether curves show the share of episodes with success, and not returns.
        prepare: called before anything of its library is made, once or more often.
        describe: makes a task of a name that `tasks` lacks, of a benchmark whose tasks are whatever is installed.
            Raises UnknownNameError with the reason.
        needs: (module, what installs it) beside the backend's.
    """

    name: str
    backends: tuple[str, ...]
    tasks: Mapping[str, Task] = field(default_factory=dict)
    suites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    score: Callable[[Task, float, float], float | None] = no_score
    by_success: bool = False
    prepare: Callable[[], None] = lambda: None
    describe: Callable[[str], Task] | None = None
