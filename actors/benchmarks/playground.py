"""The 29 tasks of MuJoCo Playground's robots, as envpool runs them: G1, T1, Go1, Spot, Panda, Leap and others.

Names are Playground's own. Most tasks of legged robots and hands have a `privileged_state`, which only the critic sees:
the state without noise, with velocities, contacts and forces that the robot cannot measure.

Steps of most tasks draw random numbers: noise of sensors, pushes and new commands.
"""

from __future__ import annotations

from actors.benchmarks.benchmark import Benchmark, Task

# Task, numbers of the observation, privileged numbers, actions, steps of an episode, and what else there is: it tells
# success, or it is `Task.repeatable`.
LOCOMOTION = """
ApolloJoystickFlatTerrain 112 224 32 1000
BarkourJoystick 465 0 12 1000
BerkeleyHumanoidJoystickFlatTerrain 52 114 12 1000
BerkeleyHumanoidJoystickRoughTerrain 52 114 12 1000
G1JoystickFlatTerrain 103 216 29 1000
G1JoystickRoughTerrain 103 216 29 1000
Go1Footstand 45 94 12 500
Go1Getup 42 91 12 300
Go1Handstand 45 94 12 500
Go1JoystickFlatTerrain 48 123 12 1000
Go1JoystickRoughTerrain 48 123 12 1000
H1InplaceGaitTracking 186 0 19 1000
H1JoystickGaitTracking 113 0 19 1000
Op3Joystick 147 0 20 1000
SpotFlatTerrainJoystick 81 167 12 1000
SpotGetup 30 0 12 300
SpotJoystickGaitTracking 69 0 12 1000
T1JoystickFlatTerrain 85 180 23 1000
T1JoystickRoughTerrain 85 180 23 1000
"""
MANIPULATION = """
AeroCubeRotateZAxis 14 81 7 500 success
AlohaHandOver 83 0 14 250 repeatable
AlohaSinglePegInsertion 82 0 14 1000 repeatable
LeapCubeReorient 57 128 16 1000 success
LeapCubeRotateZAxis 32 105 16 500 success
PandaOpenCabinet 55 0 8 150 repeatable
PandaPickCube 66 0 8 150 repeatable
PandaPickCubeCartesian 70 0 3 200
PandaPickCubeOrientation 66 0 8 150 repeatable
PandaRobotiqPushCube 48 0 7 3000 success
"""


def task(line: str) -> Task:
    """Make the task of a line of a table above."""
    name, observed, privileged, actions, limit, *has = line.split()
    only = (("", int(observed)),)
    both = (("state", int(observed)), ("privileged_state", int(privileged)))
    return Task(
        name=f"playground/{name}",
        observation_keys=both if int(privileged) else only,
        privileged_keys=("privileged_state",) if int(privileged) else (),
        action_size=int(actions),
        episode_limit=int(limit),
        library_id=f"{name}-v1",
        success_key="success" if "success" in has else "",
        repeatable="repeatable" in has,
    )


GROUPS = {
    f"playground-{group}": tuple(map(task, lines.strip().splitlines()))
    for group, lines in (("locomotion", LOCOMOTION), ("manipulation", MANIPULATION))
}
BENCHMARK = Benchmark(
    name="playground",
    backends=("envpool",),
    tasks={made.name: made for group in GROUPS.values() for made in group},
    suites={name: tuple(made.name for made in group) for name, group in GROUPS.items()},
)
