"""The catalogue of tasks by name, and of suites, which are named lists of tasks."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from contextlib import chdir
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from actors.benchmarks.benchmark import Benchmark, Task

# Names of the modules of actors/benchmarks/ that have a BENCHMARK.
OURS = (
    "dmc",
    "dmc_extra_tasks",
    "metaworld",
    "atari",
    "humanoid_bench",
    "shadow_hand",
    "playground",
    "myosuite",
    "robotics",
    "gymnasium_tasks",
    "vector_tasks",
)
GROUP = "brc.benchmarks"  # of entry points
# Suites of several benchmarks.
SUITES: dict[str, tuple[str, ...]] = {
    "quickstart-mixed": (
        "metaworld/reach",
        "metaworld/drawer-close",
        "metaworld/button-press",
        "dmc/cartpole-swingup",
        "dmc/cheetah-run",
    ),
}
# The module that a backend needs, and the command that installs it.
BACKENDS = {
    "envpool": ("envpool", "pip install envpool"),
    "ale-py": ("ale_py", "pip install ale-py"),
    "dm_control": ("dm_control", "pip install --no-deps dm_control==1.0.50"),
    "humanoid-bench": ("humanoid_bench", "make install-humanoid-bench"),
    "shadow-hand": ("dex_envs", "make install-shadow-hand"),
    "gymnasium": ("gymnasium", "pip install gymnasium"),
    "vector": ("gymnasium", "pip install gymnasium"),
}


class UnknownNameError(ValueError):
    """A task or suite does not exist. The message offers the nearest names that exist."""


@cache
def benchmarks() -> dict[str, Benchmark]:
    """Return every benchmark by name: ours, and the benchmarks that are registered by an entry point.

    Raises UnknownNameError, which names the entry point, if it cannot be loaded, is no Benchmark or has a taken name.
    """
    found = {}
    for module in OURS:
        made: Benchmark = import_module(f"actors.benchmarks.{module}").BENCHMARK
        found[made.name] = made
    for point in entry_points(group=GROUP):
        try:
            other = point.load()
        except Exception as error:  # another project may raise anything
            raise UnknownNameError(f"the benchmark {point.value} of {GROUP} cannot be loaded: {error}") from error
        if not isinstance(other, Benchmark) or other.name in found:
            taken = f"a second one named {other.name!r}" if isinstance(other, Benchmark) else "no Benchmark"
            raise UnknownNameError(f"the benchmark {point.value} of {GROUP} is {taken}: give it a name of its own")
        found[other.name] = other
    return found


def register(benchmark: Benchmark) -> None:
    """Add a benchmark in this process alone. All processes of a run find the benchmarks of entry points."""
    benchmarks()[benchmark.name] = benchmark
    all_tasks.cache_clear()


def benchmark_of(task: str) -> Benchmark:
    """Return the benchmark of a task's name. Raises UnknownNameError."""
    name = task.split("/", 1)[0]
    if name not in benchmarks():
        raise UnknownNameError(f"unknown benchmark {name!r} of {task!r}; {nearest(name, benchmarks())}")
    return benchmarks()[name]


@cache
def all_tasks() -> dict[str, Task]:
    """Return every task by name, except tasks of benchmarks whose tasks depend on what is installed."""
    return {name: task for one in benchmarks().values() for name, task in one.tasks.items()}


def suites() -> dict[str, tuple[str, ...]]:
    """Return every suite: name -> task names."""
    found = dict(SUITES)
    for one in benchmarks().values():
        found |= one.suites
    return found


def backend_of(task: Task, preferred: str) -> str:
    """Return the backend that runs a task: the preferred one if it can, else the usual one."""
    able = benchmark_of(task.name).backends
    return preferred if preferred in able else able[0]


def normalized(task: Task, episode_return: float, success: float) -> float | None:
    """Return the score of an episode, or of means over episodes, as its benchmark's community reports it. It is None if
    the community has agreed on no score."""
    return benchmark_of(task.name).score(task, episode_return, success)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return 'did you mean a, b or c?' with the names most like `name`. If none is alike, use names that contain it, or
    else the first names."""
    names = list(names)
    alike = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if not alike:  # for example a forgotten benchmark prefix
        alike = [known for known in names if name.lower() in known.lower()][:3] or names[:3]
    return "did you mean " + " or ".join([", ".join(alike[:-1])] * (len(alike) > 1) + alike[-1:]) + "?"


def resolve(names: Iterable[str]) -> tuple[Task, ...]:
    """Return the tasks of a list of task and suite names, in order, without repeats.

    Raises:
        UnknownNameError: for a name that is neither, with the nearest names, and for a gymnasium task that cannot be
            trained on, with the reason.
    """
    tasks: dict[str, Task] = {}
    known = all_tasks()
    for name in names:
        members = suites().get(name, (name,))
        for member in members:
            name_of, slash, _ = member.partition("/")
            describe = benchmarks()[name_of].describe if slash and name_of in benchmarks() else None
            if member not in known and describe is not None:
                with chdir("."):  # the environment is made once here, and may change the folder
                    tasks[member] = describe(member)
                continue
            if member not in known:
                raise UnknownNameError(f"unknown task or suite {name!r}; {nearest(name, [*suites(), *known])}")
            tasks[member] = known[member]
    return tuple(tasks.values())
