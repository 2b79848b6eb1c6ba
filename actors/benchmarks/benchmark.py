"""Tasks and benchmarks. A benchmark is a set of tasks, and how they are run, scored and grouped; each is one file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Task:
    """One environment. `name` is benchmark/name.

    Attributes:
        observation_keys: (key, size) in the order in which they are flattened; the key of a single array is "".
        privileged_keys: the last of these keys, which only the critic sees.
        episode_limit: steps after which an episode is cut.
        library_id: its name in the benchmark's first backend; with gymnasium what `gymnasium.make` takes, such as
            Hopper-v5 or package.module:Name-v0.
        options: further arguments of that backend's `make`.
        success_key: the key of success in envpool's info; "" in tasks without success. The backend gymnasium finds
            success by itself, under `success` or `is_success`.
        num_actions: the number of discrete actions, 0 for continuous ones. A discrete action is one number, its index.
        image: (frames, height, width) of observations that are stacks of uint8 frames; otherwise empty.
        repeatable: whether a fresh copy reaches the same state by as many resets and the same actions since the last.
            It does not where steps draw random numbers, or where something is carried over from episode to episode.
        fixed_start: in envpool, the seed of the start that all episodes of all copies have; None where each begins
            anew.
        action_repeat: steps of the environment for which an action is held. A step of a run is one action: its reward
            is the sum, and its observation the last. `repeated` sets it.
        own_limit: if actions are repeated, steps of the environment after which an episode is cut.
        bounds: leave it empty. A `describe` fills it with actors.backends.actions.bounds of the environment that it
            has looked at; the backend compares it with every copy.
    """

    name: str
    observation_keys: tuple[tuple[str, int], ...]
    action_size: int
    episode_limit: int
    library_id: str
    options: tuple[tuple[str, Any], ...] = ()
    privileged_keys: tuple[str, ...] = ()
    success_key: str = ""
    num_actions: int = 0
    image: tuple[int, ...] = ()
    repeatable: bool = True
    fixed_start: int | None = None
    action_repeat: int = 1
    own_limit: int = 0
    bounds: str = ""

    @property
    def benchmark(self) -> str:
        return self.name.split("/", 1)[0]

    @property
    def short_name(self) -> str:
        return self.name.split("/", 1)[1]

    def __post_init__(self) -> None:
        last = tuple(key for key, _ in self.observation_keys[len(self.observation_keys) - len(self.privileged_keys) :])
        if self.privileged_keys != last or (last and not self.observation_size):
            raise ValueError(f"privileged_keys {self.privileged_keys} of {self.name} must be the last of several keys")

    @property
    def observation_size(self) -> int:
        """The numbers that policy and critic see."""
        return sum(size for key, size in self.observation_keys if key not in self.privileged_keys)

    @property
    def privileged_size(self) -> int:
        """The numbers that only the critic sees; they follow the others."""
        return sum(size for key, size in self.observation_keys if key in self.privileged_keys)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The shape of what an environment observes, privileged numbers included."""
        return self.image or (self.observation_size + self.privileged_size,)

    @property
    def environment_limit(self) -> int:
        """Steps of the environment itself after which an episode is cut."""
        return self.own_limit or self.episode_limit

    def repeated(self, times: int) -> Task:
        """Return the task with every action held for `times` steps of the environment."""
        limit = self.environment_limit
        return replace(self, action_repeat=times, own_limit=limit if times > 1 else 0, episode_limit=-(-limit // times))

    def with_privileged(self, keys: Collection[str]) -> Task:
        """Return the task with those of its keys that are in `keys` privileged. Raises ValueError if all are."""
        own = tuple(one for one in self.observation_keys if one[0] in keys)
        shared = tuple(one for one in self.observation_keys if one[0] not in keys)
        return replace(self, observation_keys=shared + own, privileged_keys=tuple(key for key, _ in own))

    def unprivileged(self) -> Task:
        """Return the task without its privileged observations."""
        shared = tuple((key, size) for key, size in self.observation_keys if key not in self.privileged_keys)
        return replace(self, observation_keys=shared, privileged_keys=())

    @property
    def observation_dtype(self) -> str:
        return "uint8" if self.image else "float32"


def no_score(task: Task, episode_return: float, success: float) -> None:
    """Return None: the community has agreed on no score."""


def success_rate(task: Task, episode_return: float, success: float) -> float:
    """Return 1 if the episode had success at some step, else 0; or the share of episodes with success."""
    return float(success)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark. Another project registers its own by an entry point of the group `brc.benchmarks`.

    Raises ValueError for a task with bounds.

    Attributes:
        name: the beginning of its tasks' names.
        backends: the backends of actors/backends/ that run it, the usual one first.
        tasks: by their full names.
        suites: named lists of task names.
        score: (task, return, success) -> the score, or None if there is none. 0 is a beginner's and 1 a good result; it
            is not clipped. It is called with the return and success of one episode, and with their means over episodes.
        by_success: whether curves show the share of episodes with success instead of returns.
        prepare: called before an environment of its library is made, once or more often.
        caution: task -> what one must know before its results are compared, in a sentence; "" for nothing. The console
            says it when a run begins.
        describe: makes a task from a name that `tasks` lacks, for a benchmark whose tasks depend on what is installed.
            Raises UnknownNameError with the reason.
    """

    name: str
    backends: tuple[str, ...]
    tasks: Mapping[str, Task] = field(default_factory=dict)
    suites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    score: Callable[[Task, float, float], float | None] = no_score
    by_success: bool = False
    prepare: Callable[[], None] = lambda: None
    caution: Callable[[Task], str] = lambda task: ""
    describe: Callable[[str], Task] | None = None

    def __post_init__(self) -> None:
        for task in self.tasks.values():
            if task.bounds:
                raise ValueError(f"bounds {task.bounds!r} of {task.name}: leave them empty, the backend reads them")
