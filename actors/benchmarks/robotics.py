"""The 93 tasks of gymnasium-robotics that envpool runs: Fetch, Shadow hands, Adroit hands, mazes and a kitchen.

Names are the library's own without the version, which is the newest that envpool has. Names that end in Dense have
rewards for coming closer, and names that end in Sparse, or in neither, a reward at the goal alone; of Adroit hands,
names that end in neither have dense rewards. Goals are part of the observation.
"""

from __future__ import annotations

from actors.benchmarks.benchmark import Benchmark, Task, success_rate

# Version, numbers of the observation, of a goal, actions, steps of an episode, and tasks; each also as Dense.
GOALS = """
4 10 3 4 50 FetchReach
4 25 3 4 50 FetchPush FetchPickAndPlace FetchSlide
3 63 15 20 50 HandReach
1 61 7 20 100 HandManipulateBlock HandManipulateBlockFull HandManipulateBlockRotateParallel
1 61 7 20 100 HandManipulateBlockRotateXYZ HandManipulateBlockRotateZ HandManipulateEgg HandManipulateEggFull
1 61 7 20 100 HandManipulateEggRotate HandManipulatePen HandManipulatePenFull HandManipulatePenRotate
3 4 2 2 300 PointMaze_Open PointMaze_UMaze PointMaze_Open_Diverse_G PointMaze_Open_Diverse_GR
3 4 2 2 600 PointMaze_Medium PointMaze_Medium_Diverse_G PointMaze_Medium_Diverse_GR
3 4 2 2 800 PointMaze_Large PointMaze_Large_Diverse_G PointMaze_Large_Diverse_GR
"""
# Manipulation by a hand that feels.
TOUCHED = "Block BlockRotateParallel BlockRotateXYZ BlockRotateZ Egg EggRotate Pen PenRotate"
TOUCH = 92  # numbers that the hand feels
ADROIT = {"Door": (39, 28), "Hammer": (46, 26), "Pen": (45, 24), "Relocate": (39, 30)}  # observation, actions
FETCH = "FetchReach FetchPush FetchPickAndPlace FetchSlide"


def with_goal(version: int, name: str, observed: int, goal: int, actions: int, limit: int) -> list[Task]:
    """Return a task with a sparse and with a dense reward. The order of its keys is gymnasium's, the alphabet's."""
    return [
        Task(
            name=f"robotics/{name}{dense}",
            observation_keys=(("achieved_goal", goal), ("desired_goal", goal), ("observation", observed)),
            action_size=actions,
            episode_limit=limit,
            library_id=f"{name}{dense}-v{version}",
            success_key="success" if name.startswith("Point") else "is_success",
        )
        for dense in ("", "Dense")
    ]


def goals() -> list[Task]:
    """Return the tasks whose observation has a goal."""
    made = []
    for line in GOALS.strip().splitlines():
        version, observed, goal, actions, limit, *names = line.split()
        sizes = int(observed), int(goal), int(actions), int(limit)
        made += [each for name in names for each in with_goal(int(version), name, *sizes)]
    for body in TOUCHED.split():
        for kind in ("Boolean", "Continuous"):
            made += with_goal(1, f"HandManipulate{body}_{kind}TouchSensors", 61 + TOUCH, 7, 20, 100)
    return made


def adroit() -> list[Task]:
    return [
        Task(
            name=f"robotics/AdroitHand{name}{sparse}",
            observation_keys=(("", observed),),
            action_size=actions,
            episode_limit=200,
            library_id=f"AdroitHand{name}{sparse}-v1",
            success_key="success",
        )
        for name, (observed, actions) in ADROIT.items()
        for sparse in ("", "Sparse")
    ]


KITCHEN = Task(
    name="robotics/FrankaKitchen",
    observation_keys=(("observation", 59),),  # the goals never change
    action_size=9,
    episode_limit=280,
    library_id="FrankaKitchen-v1",
    repeatable=False,
)


def score(task: Task, episode_return: float, success: float) -> float:
    """Return the success, or in the kitchen the share of its seven tasks that were done, each of which pays 1."""
    return episode_return / 7 if task.name == KITCHEN.name else success_rate(task, episode_return, success)


TASKS = {made.name: made for made in (*goals(), *adroit(), KITCHEN)}
BENCHMARK = Benchmark(
    name="robotics",
    backends=("envpool",),
    tasks=TASKS,
    suites={
        "fetch": tuple(f"robotics/{name}" for name in FETCH.split()),
        "fetch-dense": tuple(f"robotics/{name}Dense" for name in FETCH.split()),
        "adroit": tuple(f"robotics/AdroitHand{name}" for name in ADROIT),
    },
    score=score,
    by_success=True,
)
