"""The 50 tasks of MetaWorld, third version, as envpool runs them: the robot's hand and two objects, with the goal.

Two settings differ from envpool's defaults. First, the goal is part of the observation: every reset draws a new goal,
and without it the tasks cannot be told apart. Second, episodes are 200 steps long, as in the paper. The paper trained
on the second version of these tasks; the rewards of the third version differ (docs/benchmarks.md).
"""

from __future__ import annotations

import re

from actors.benchmarks.benchmark import Benchmark, Task, success_rate

OBSERVATION_SIZE, ACTION_SIZE, EPISODE_LIMIT = 39, 4, 200
NAMES = """
Assembly Basketball BinPicking BoxClose ButtonPress ButtonPressTopdown ButtonPressTopdownWall ButtonPressWall
CoffeeButton CoffeePull CoffeePush DialTurn Disassemble DoorClose DoorLock DoorOpen DoorUnlock DrawerClose DrawerOpen
FaucetClose FaucetOpen Hammer HandInsert HandlePress HandlePressSide HandlePull HandlePullSide LeverPull PegInsertSide
PegUnplugSide PickOutOfHole PickPlace PickPlaceWall PlateSlide PlateSlideBack PlateSlideBackSide PlateSlideSide Push
PushBack PushWall Reach ReachWall ShelfPlace Soccer StickPull StickPush Sweep SweepInto WindowClose WindowOpen
"""

TEN = """
Reach Push PickPlace DoorOpen DrawerOpen DrawerClose ButtonPressTopdown PegInsertSide WindowOpen WindowClose
"""  # the library's MT10


def task(name: str) -> Task:
    """Make the task of one of NAMES: PickPlaceWall -> metaworld/pick-place-wall."""
    return Task(
        name="metaworld/" + re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower(),
        observation_keys=(("", OBSERVATION_SIZE),),
        action_size=ACTION_SIZE,
        episode_limit=EPISODE_LIMIT,
        library_id=f"MetaWorld/{name}-v3",
        options=(("partially_observable", False),),
        success_key="success",
    )


def caution(task: Task) -> str:
    """Return a sentence if all episodes of a task have one goal."""
    return "" if task.fixed_start is None else "every episode has the same goal; compare with runs on frozen goals"


TASKS = {made.name: made for made in map(task, NAMES.split())}
BENCHMARK = Benchmark(
    name="metaworld",
    backends=("envpool",),
    tasks=TASKS,
    suites={"metaworld-50": tuple(TASKS), "metaworld-10": tuple(task(name).name for name in TEN.split())},
    score=success_rate,
    by_success=True,
    caution=caution,
)
