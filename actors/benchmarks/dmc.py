"""The 51 tasks of the dm_control suite: observation keys in dm_control's order, with their sizes.

envpool gives every task of a domain the union of the domain's keys, with zeros for unused keys. For fish-swim it uses
another order. Naming the keys makes both backends agree with dm_control; a test compares this table with dm_control.
"""

from __future__ import annotations

from actors.benchmarks.benchmark import Benchmark, Task

Keys = dict[str, int]

DOG: Keys = {
    "joint_angles": 73,
    "joint_velocites": 73,  # dm_control's spelling
    "torso_pelvis_height": 2,
    "z_projection": 9,
    "torso_com_velocity": 3,
    "inertial_sensors": 9,
    "foot_forces": 12,
    "touch_sensors": 4,
    "actuator_state": 38,
}
HUMANOID: Keys = {
    "joint_angles": 21,
    "head_height": 1,
    "extremities": 12,
    "torso_vertical": 3,
    "com_velocity": 3,
    "velocity": 27,
}
HUMANOID_CMU: Keys = HUMANOID | {"joint_angles": 56, "velocity": 62}
QUADRUPED: Keys = {"egocentric_state": 44, "torso_velocity": 3, "torso_upright": 1, "imu": 6, "force_torque": 24}
ARM: Keys = {"arm_pos": 16, "arm_vel": 8, "touch": 5, "hand_pos": 4}
MANIPULATOR: Keys = ARM | {"object_pos": 4, "object_vel": 3, "target_pos": 4}
FINGER: Keys = {"position": 4, "velocity": 3, "touch": 2}
FINGER_TURN: Keys = FINGER | {"target_position": 2, "dist_to_target": 1}
CARTPOLE: Keys = {"position": 3, "velocity": 2}
ACROBOT: Keys = {"orientations": 4, "velocity": 2}
HOPPER: Keys = {"position": 6, "velocity": 7, "touch": 2}
REACHER: Keys = {"position": 2, "to_target": 2, "velocity": 2}
WALKER: Keys = {"orientations": 14, "height": 1, "velocity": 9}
POINT_MASS: Keys = {"position": 2, "velocity": 2}
BALL: Keys = {"ball_state": 6, "target_position": 3}

# (domain, task): (observation keys, action size)
SUITE: dict[tuple[str, str], tuple[Keys, int]] = {
    ("acrobot", "swingup"): (ACROBOT, 1),
    ("acrobot", "swingup_sparse"): (ACROBOT, 1),
    ("ball_in_cup", "catch"): ({"position": 4, "velocity": 4}, 2),
    ("cartpole", "balance"): (CARTPOLE, 1),
    ("cartpole", "balance_sparse"): (CARTPOLE, 1),
    ("cartpole", "swingup"): (CARTPOLE, 1),
    ("cartpole", "swingup_sparse"): (CARTPOLE, 1),
    ("cartpole", "two_poles"): ({"position": 5, "velocity": 3}, 1),
    ("cartpole", "three_poles"): ({"position": 7, "velocity": 4}, 1),
    ("cheetah", "run"): ({"position": 8, "velocity": 9}, 6),
    ("dog", "stand"): (DOG, 38),
    ("dog", "walk"): (DOG, 38),
    ("dog", "trot"): (DOG, 38),
    ("dog", "run"): (DOG, 38),
    ("dog", "fetch"): (DOG | BALL, 38),
    ("finger", "spin"): (FINGER, 2),
    ("finger", "turn_easy"): (FINGER_TURN, 2),
    ("finger", "turn_hard"): (FINGER_TURN, 2),
    ("fish", "upright"): ({"joint_angles": 7, "upright": 1, "velocity": 13}, 5),
    ("fish", "swim"): ({"joint_angles": 7, "upright": 1, "target": 3, "velocity": 13}, 5),
    ("hopper", "stand"): (HOPPER, 4),
    ("hopper", "hop"): (HOPPER, 4),
    ("humanoid", "stand"): (HUMANOID, 21),
    ("humanoid", "walk"): (HUMANOID, 21),
    ("humanoid", "run"): (HUMANOID, 21),
    ("humanoid", "run_pure_state"): ({"position": 28, "velocity": 27}, 21),
    ("humanoid_CMU", "stand"): (HUMANOID_CMU, 56),
    ("humanoid_CMU", "walk"): (HUMANOID_CMU, 56),
    ("humanoid_CMU", "run"): (HUMANOID_CMU, 56),
    ("lqr", "lqr_2_1"): ({"position": 2, "velocity": 2}, 1),
    ("lqr", "lqr_6_2"): ({"position": 6, "velocity": 6}, 2),
    ("manipulator", "bring_ball"): (MANIPULATOR, 5),
    ("manipulator", "bring_peg"): (MANIPULATOR, 5),
    ("manipulator", "insert_ball"): (MANIPULATOR, 5),
    ("manipulator", "insert_peg"): (MANIPULATOR, 5),
    ("pendulum", "swingup"): ({"orientation": 2, "velocity": 1}, 1),
    ("point_mass", "easy"): (POINT_MASS, 2),
    ("point_mass", "hard"): (POINT_MASS, 2),
    ("quadruped", "walk"): (QUADRUPED, 12),
    ("quadruped", "run"): (QUADRUPED, 12),
    ("quadruped", "escape"): (QUADRUPED | {"origin": 3, "rangefinder": 20}, 12),
    ("quadruped", "fetch"): (QUADRUPED | {"ball_state": 9, "target_position": 3}, 12),
    ("reacher", "easy"): (REACHER, 2),
    ("reacher", "hard"): (REACHER, 2),
    ("stacker", "stack_2"): (ARM | {"box_pos": 8, "box_vel": 6, "target_pos": 2}, 5),
    ("stacker", "stack_4"): (ARM | {"box_pos": 16, "box_vel": 12, "target_pos": 2}, 5),
    ("swimmer", "swimmer6"): ({"joints": 5, "to_target": 2, "body_velocities": 18}, 5),
    ("swimmer", "swimmer15"): ({"joints": 14, "to_target": 2, "body_velocities": 45}, 14),
    ("walker", "stand"): (WALKER, 6),
    ("walker", "walk"): (WALKER, 6),
    ("walker", "run"): (WALKER, 6),
}


# Tasks of dm_control's suite among the 80 tasks that TD-MPC2 (arXiv 2310.16828) learns together.
OF_80 = """
walker-stand walker-walk walker-run cheetah-run reacher-easy reacher-hard acrobot-swingup pendulum-swingup
cartpole-balance cartpole-balance_sparse cartpole-swingup cartpole-swingup_sparse ball_in_cup-catch finger-spin
finger-turn_easy finger-turn_hard fish-swim hopper-stand hopper-hop
"""


def envpool_id(domain: str, name: str) -> str:
    """Return envpool's name of a task: humanoid_CMU, run_pure_state -> HumanoidCMURunPureState-v1."""
    words = f"{domain}_{name}".split("_")
    return "".join(word[:1].upper() + word[1:] for word in words) + "-v1"


TASKS = {
    f"dmc/{domain}-{name}": Task(
        name=f"dmc/{domain}-{name}",
        observation_keys=tuple(keys.items()),
        action_size=actions,
        episode_limit=1000,
        library_id=envpool_id(domain, name),
    )
    for (domain, name), (keys, actions) in SUITE.items()
}


def score(task: Task, episode_return: float, success: float) -> float:
    """Return the episode's return as a share of 1000, the most that an episode can give."""
    return episode_return / 1000.0


DOGS = ("dmc/dog-stand", "dmc/dog-walk", "dmc/dog-trot", "dmc/dog-run")
HUMANOIDS = ("dmc/humanoid-stand", "dmc/humanoid-walk", "dmc/humanoid-run")
BENCHMARK = Benchmark(
    name="dmc",
    backends=("envpool", "dm_control"),
    tasks=TASKS,
    suites={
        "quickstart": ("dmc/cartpole-balance", "dmc/cartpole-swingup", "dmc/ball_in_cup-catch", "dmc/reacher-easy"),
        "dmc-dogs": DOGS,
        "dmc-humanoids": HUMANOIDS,
        "dmc-hard": DOGS + HUMANOIDS,
        "dmc-all": tuple(TASKS),
    },
    score=score,
)
