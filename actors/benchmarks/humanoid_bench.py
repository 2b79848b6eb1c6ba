"""HumanoidBench: the tasks of its paper and of the BRC paper, and patches for the library to run with today's packages.

The library is not on a package index: `make install-humanoid-bench` installs it without its pins. It was written for
mujoco 3.1.6. With later versions the physics differ a little: scores are not strictly comparable (docs/benchmarks.md).
"""

from __future__ import annotations

import sys
import types

from actors.benchmarks.benchmark import Benchmark, Task

# Robot with hands: observation size by task. Episodes are 1,000 steps, except for tasks in SHORT.
HAND: dict[str, int] = {
    "balance_hard": 177,
    "balance_simple": 164,
    "basketball": 164,
    "bookshelf_hard": 308,
    "bookshelf_simple": 308,
    "cabinet": 213,
    "crawl": 151,
    "cube": 181,
    "door": 155,
    "hurdle": 151,
    "insert_normal": 190,
    "insert_small": 190,
    "maze": 151,
    "package": 173,
    "pole": 151,
    "powerlift": 164,
    "push": 163,
    "reach": 157,
    "room": 229,
    "run": 151,
    "sit_hard": 164,
    "sit_simple": 151,
    "slide": 151,
    "spoon": 167,
    "stair": 151,
    "stand": 151,
    "truck": 216,
    "walk": 151,
    "window": 171,
}
BODY: dict[str, int] = dict.fromkeys(
    ("crawl", "hurdle", "maze", "pole", "run", "sit_simple", "slide", "stair", "stand", "walk"), 51
)
SHORT = {"basketball", "cube", "insert_normal", "insert_small", "push"}  # 500 steps
# The library's own success_bar: the return at which a task counts as solved.
SOLVED_AT: dict[str, float] = {
    "balance_hard": 800,
    "balance_simple": 800,
    "basketball": 1200,
    "bookshelf_hard": 2000,
    "bookshelf_simple": 2000,
    "cabinet": 2500,
    "crawl": 700,
    "cube": 370,
    "door": 600,
    "hurdle": 700,
    "insert_normal": 350,
    "insert_small": 350,
    "maze": 1200,
    "package": 1500,
    "pole": 700,
    "powerlift": 800,
    "push": 700,
    "reach": 12000,
    "room": 400,
    "run": 700,
    "sit_hard": 750,
    "sit_simple": 750,
    "slide": 700,
    "spoon": 650,
    "stair": 700,
    "stand": 800,
    "truck": 3000,
    "walk": 700,
    "window": 650,
}
# Tasks in the results of the BRC paper, but not in its published code.
LATER = ("basketball", "cabinet", "cube", "door", "powerlift", "push", "room", "truck")


def tasks(robot: str, sizes: dict[str, int], actions: int) -> dict[str, Task]:
    made = {}
    for name, size in sizes.items():
        key = f"humanoid-bench/{robot}-{name}"
        limit = 500 if name in SHORT else 1000
        made[key] = Task(
            name=key,
            observation_keys=(("", size),),
            action_size=actions,
            episode_limit=limit,
            library_id=f"{robot}-{name}-v0",
            options=(("render_mode", None),),
        )
    return made


TASKS = tasks("h1", BODY, 19) | tasks("h1hand", HAND, 61)
SUITES = {
    "hb-medium": tuple(name for name in TASKS if name.startswith("humanoid-bench/h1-") and "sit" not in name),
    "hb-hard": tuple(name for name in TASKS if "/h1hand-" in name and "package" not in name),
}
SUITES["hb-hard-20"] = tuple(name for name in SUITES["hb-hard"] if name.split("-")[-1] not in LATER)


def solved_at(task: Task) -> float:
    return SOLVED_AT[task.short_name.split("-", 1)[1]]


def prepare() -> None:
    """Import the library, once, so that its environments can be made.

    The library imports torch and jax for policies that no task here uses. They would cost an actor 200 MB, so their
    module is replaced. Its table of MuJoCo's arrays names arrays that later versions lack; these entries are deleted.
    """
    if "humanoid_bench" in sys.modules:
        return
    unused = types.ModuleType("humanoid_bench.mjx.flax_to_torch")
    vars(unused).update(TorchModel=None, TorchPolicy=None)
    sys.modules[unused.__name__] = unused
    import humanoid_bench.dmc_deps.dmc_sizes as sizes
    import mujoco

    for struct, kind in (("mjmodel", mujoco.MjModel), ("mjdata", mujoco.MjData)):
        arrays = sizes.array_sizes[struct]
        for name in [name for name in arrays if not hasattr(kind, name)]:
            del arrays[name]
    from humanoid_bench.tasks import Task as Base

    # Renderers of later versions of gymnasium get their camera when they are made, not when they render.
    Base.render = lambda self: self._env.mujoco_renderer.render(self._env.render_mode)


BENCHMARK = Benchmark(
    name="humanoid-bench",
    backends=("humanoid-bench",),
    tasks=TASKS,
    suites=SUITES,
    score=lambda task, episode_return, success: episode_return / solved_at(task),
    prepare=prepare,
)
