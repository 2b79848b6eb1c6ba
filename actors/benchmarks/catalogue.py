"""What can be trained on: tasks by name, and suites, which are named lists of tasks."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from contextlib import chdir
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
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


SUITES: dict[str, tuple[str, ...]] = {
    "quickstart": ("dmc/cartpole-balance", "dmc/cartpole-swingup", "dmc/ball_in_cup-catch", "dmc/reacher-easy"),
    "dmc-dogs": ("dmc/dog-stand", "dmc/dog-walk", "dmc/dog-trot", "dmc/dog-run"),
    "dmc-humanoids": ("dmc/humanoid-stand", "dmc/humanoid-walk", "dmc/humanoid-run"),
    "quickstart-mixed": (
        "metaworld/reach",
        "metaworld/drawer-close",
        "metaworld/button-press",
        "dmc/cartpole-swingup",
        "dmc/cheetah-run",
    ),
}
SUITES["dmc-hard"] = SUITES["dmc-dogs"] + SUITES["dmc-humanoids"]

# The modules a backend needs, and what installs them.
BACKENDS = {
    "envpool": ("envpool", "pip install envpool"),
    "ale-py": ("ale_py", "pip install ale-py"),
    "dm_control": ("dm_control", "pip install --no-deps dm_control==1.0.50"),
    "humanoid-bench": ("humanoid_bench", "make install-humanoid-bench"),
    "shadow-hand": ("dex_envs", "make install-shadow-hand"),
    "gymnasium": ("gymnasium", "pip install gymnasium"),
}
# The backends that run a benchmark, the usual one first.
RUN_BY = {
    "dmc": ("envpool", "dm_control"),
    "dmc-extra": ("dm_control",),
    "metaworld": ("envpool",),
    "atari": ("envpool", "ale-py"),
    "humanoid-bench": ("humanoid-bench",),
    "shadow-hand": ("shadow-hand",),
    "gymnasium": ("gymnasium",),
}


class UnknownNameError(ValueError):
    """A task or suite that does not exist; the message offers the nearest that do."""


@cache
def all_tasks() -> dict[str, Task]:
    """Every task by name, but for those of gymnasium, which are whatever is installed."""
    from actors.benchmarks import atari, dmc, humanoid_bench, metaworld, shadow_hand

    return dmc.TASKS | dmc.EXTRA_TASKS | metaworld.TASKS | atari.TASKS | humanoid_bench.TASKS | shadow_hand.TASKS


def suites() -> dict[str, tuple[str, ...]]:
    """Every suite: name -> task names."""
    from actors.benchmarks import atari, dmc, humanoid_bench, metaworld, shadow_hand

    of_80 = (*metaworld.TASKS, *(f"dmc/{name}" for name in dmc.OF_80.split()), *dmc.EXTRA_TASKS)
    return (
        SUITES
        | {"metaworld-dmc-80": of_80}
        | atari.SUITES
        | humanoid_bench.SUITES
        | shadow_hand.SUITES
        | {
            suite: tuple(name for name in all_tasks() if name.startswith(prefix))
            for suite, prefix in (("dmc-all", "dmc/"), ("metaworld-50", "metaworld/"))
        }
    )


def backend_of(task: Task, preferred: str) -> str:
    """What runs a task: the preferred backend, if it can."""
    able = RUN_BY[task.benchmark]
    return preferred if preferred in able else able[0]


def nearest(name: str, names: Iterable[str]) -> str:
    """'did you mean a, b or c?' for the names most like `name`; the shortest list that helps when none is alike."""
    names = list(names)
    alike = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if not alike:  # a forgotten benchmark prefix, say
        alike = [known for known in names if name.lower() in known.lower()][:3] or names[:3]
    return "did you mean " + " or ".join([", ".join(alike[:-1])] * (len(alike) > 1) + alike[-1:]) + "?"


def resolve(names: Iterable[str]) -> tuple[Task, ...]:
    """Tasks of a list of task and suite names, in order, without repeats.

    Raises:
        UnknownNameError: for a name that is neither, with the nearest names, and for a gymnasium task that cannot be
            trained on, with the reason.
    """
    tasks: dict[str, Task] = {}
    known = all_tasks()
    for name in names:
        members = suites().get(name, (name,))
        for member in members:
            if member.startswith("gymnasium/"):
                from actors.benchmarks.gymnasium_tasks import describe

                with chdir("."):  # it is made once for this, and may go elsewhere
                    tasks[member] = describe(member)
                continue
            if member not in known:
                raise UnknownNameError(f"unknown task or suite {name!r}; {nearest(name, [*suites(), *known])}")
            tasks[member] = known[member]
    return tuple(tasks.values())
