"""A Shadow hand turns an object about the vertical axis to a goal: 85 objects to train on, 29 to transfer to.

The tasks are from the BRC authors' repository and run on gymnasium-robotics: `make install-shadow-hand`. The reward is
sparse: 0 for a step at the goal, -1 for any other step. An episode has success if it was at the goal at some step.
"""

from __future__ import annotations

import importlib
import sys
import types

from actors.benchmarks.benchmark import Benchmark, Task, success_rate

TRAINING = """
a_cups a_lego_duplo airplane alarm_clock apple b_colored_wood_blocks b_cups b_lego_duplo b_toy_airplane ball banana
baseball binoculars c_cups c_lego_duplo c_toy_airplane camera can chain chips_can cracker_box cube cup d_cups
d_lego_duplo d_marbles d_toy_airplane e_cups e_toy_airplane elephant extra_large_clamp f_cups f_lego_duplo
f_toy_airplane flat_screwdriver foam_brick g_lego_duplo gelatin_box golf_ball h_cups h_lego_duplo hammer headphones
i_cups i_lego_duplo i_toy_airplane j_cups j_lego_duplo j_toy_airplane k_lego_duplo k_toy_airplane knife large_marker
light_bulb master_chef_can medium_clamp mouse mug nine_hole_peg_test orange padlock pan peach phillips_screwdriver
piggy_bank pitcher_base power_drill ps_controller pudding_box racquetball rubber_duck scissors small_marker softball
sponge strawberry sugar_box tennis_ball toothbrush torus tuna_fish_can water_bottle wine_glass wood_block wristwatch
"""
TRANSFER = """
a_marbles a_toy_airplane bleach_cleanser bowl cell_phone dice door_knob e_lego_duplo flashlight flute fork g_cups
l_lego_duplo large_clamp lemon m_lego_duplo mustard_bottle pear plum potted_meat_can pyramid rubiks_cube
stanford_bunny stapler timer tomato_soup_can toothpaste train utah_teapot
"""
KEYS = (("observation", 61), ("desired_goal", 7))  # as in the paper's code: "observation" includes the achieved goal


def task(thing: str) -> Task:
    return Task(
        name=f"shadow-hand/{thing}",
        observation_keys=KEYS,
        action_size=20,
        episode_limit=100,
        library_id=f"{thing}-rotate-v1",
    )


TASKS = {made.name: made for made in map(task, (TRAINING + TRANSFER).split())}
SUITES = {
    "shadowhand-85": tuple(f"shadow-hand/{thing}" for thing in TRAINING.split()),
    "shadowhand-29": tuple(f"shadow-hand/{thing}" for thing in TRANSFER.split()),
}


def prepare() -> None:
    """Import the library, once, so that its environments can be made.

    gymnasium-robotics compares a joint's number with MuJoCo's enums. From MuJoCo 3.13 on they are never equal, so it
    gets plain numbers to compare with.
    """
    if "dex_envs" in sys.modules:
        return
    import mujoco
    from gymnasium_robotics.utils import mujoco_utils

    numbers = types.ModuleType("mujoco")
    joints = {name: int(value) for name, value in mujoco.mjtJoint.__members__.items()}
    vars(numbers).update(vars(mujoco) | {"mjtJoint": types.SimpleNamespace(**joints)})
    mujoco_utils.mujoco = numbers
    importlib.import_module("dex_envs")


BENCHMARK = Benchmark(
    name="shadow-hand",
    backends=("shadow-hand",),
    tasks=TASKS,
    suites=SUITES,
    score=success_rate,
    by_success=True,
    prepare=prepare,
)
