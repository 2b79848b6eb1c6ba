"""Eleven more tasks on the bodies of dm_control. With 19 tasks of its suite and MetaWorld's 50 they are the 80 tasks of
TD-MPC2 (arXiv 2310.16828).

Bodies, observations and initial states are dm_control's unless said otherwise below. The rewards are from TD-MPC2's
published code. The tasks run on dm_control only, in its episodes of 1000 steps; TD-MPC2 repeats every action once.
"""

from __future__ import annotations

import xml.etree.ElementTree as xml
from collections.abc import Callable
from typing import Any

import numpy as np
from dm_control.rl import control
from dm_control.suite import ball_in_cup, base, cheetah, hopper, pendulum, reacher, walker
from dm_control.utils.rewards import tolerance

INF = float("inf")
# An arm of three links: names of link and joint, and how far the joint turns to each side, in degrees; 0 is unlimited.
THREE_LINKS = (("arm0", "shoulder0", 0), ("arm1", "shoulder1", 80), ("hand", "wrist", 80))
LINK = 0.09

Reward = Callable[[Any], float]


def linear(value: float, least: float, margin: float, at_margin: float) -> float:
    """Return 1 for values from `least` on. Below, the result falls linearly, to `at_margin` at `least` - `margin`."""
    return float(tolerance(value, (least, INF), margin=margin, value_at_margin=at_margin, sigmoid="linear"))


def cheetah_backwards(physics: Any) -> float:
    return linear(-physics.speed(), 8.0, 8.0, 0.0)


def cheetah_jump(physics: Any) -> float:
    """Reward a high torso and high feet, without moving forwards or back. The height term is the mean over the feet."""
    torso, still = physics.named.data.xpos["torso", "z"], linear(-abs(physics.speed()), -0.5, 0.5, 0.0)
    up = [tolerance((torso + physics.named.data.xpos[foot, "z"]) / 2, (1.2, INF), margin=0.6) for foot in FEET]
    return float((5 * np.mean(up) + still) / 6)


FEET = ("bfoot", "ffoot")


def cheetah_on(lifted: str) -> Reward:
    """Return the reward for running on one foot, with the foot `lifted` and the torso up."""

    def reward(physics: Any) -> float:
        heights = (physics.named.data.xpos[part, "z"] for part in ("torso", lifted))
        torso, foot = (tolerance(height, (1.2, INF), margin=0.6) for height in heights)
        return float((3 * foot + 2 * torso) / 5 * (5 * linear(physics.speed(), 6.0, 6.0, 0.0) + 1) / 6)

    return reward


def walker_backwards(speed: float) -> Reward:
    def reward(physics: Any) -> float:
        standing = tolerance(physics.torso_height(), (1.2, INF), margin=0.6)
        stand = (3 * standing + (1 + physics.torso_upright()) / 2) / 4
        return float(stand * (5 * linear(-physics.horizontal_velocity(), speed, speed / 2, 0.5) + 1) / 6)

    return reward


def hopper_backwards(physics: Any) -> float:
    return float(tolerance(physics.height(), (0.6, 2.0)) * linear(-physics.speed(), 1.0, 0.5, 0.5))


def pendulum_spin(physics: Any) -> float:
    return linear(float(np.linalg.norm(physics.angular_velocity())), 9.0, 4.5, 0.5)


def cup_spin(physics: Any) -> float:
    """Reward a ball that is fast and far from the cup."""
    far = linear(float(np.linalg.norm(physics.ball_to_target())), 0.5, 0.25, 0.5)
    speed = np.linalg.norm([physics.named.data.qvel[name] for name in ("ball_x", "ball_z")])
    return (1 - float(physics.in_target())) * (far + 2 * linear(float(speed), 6.0, 3.0, 0.5)) / 3


class BallInCup(ball_in_cup.BallInCup):  # type: ignore[misc]
    """dm_control's task, but nine of ten episodes begin with the ball in the cup."""

    def initialize_episode(self, physics: Any) -> None:
        anywhere = self.random.uniform() < 0.1
        while True:
            physics.named.data.qpos["ball_x"] = self.random.uniform(-0.2, 0.2)
            physics.named.data.qpos["ball_z"] = self.random.uniform(0.2, 0.5)
            physics.after_reset()
            if physics.data.ncon == 0 and (anywhere or physics.in_target()):
                break
        base.Task.initialize_episode(self, physics)


def three_links() -> str:
    """Return the XML of dm_control's reacher with an arm of three links."""
    root = xml.fromstring(reacher.get_model_and_assets()[0])
    world, actuators = root.find("worldbody"), root.find("actuator")
    assert world is not None and actuators is not None
    arm = next(body for body in world.findall("body") if body.get("name") == "arm")
    finger = next(body for body in arm.iter("body") if body.get("name") == "finger")
    world.remove(arm)
    actuators.clear()
    parent, position = world, "0 0 .01"
    for name, joint, turns in THREE_LINKS:
        body = xml.SubElement(parent, "body", name=name, pos=position)
        length = 0.1 if name == "hand" else LINK
        shape = {"type": "capsule", "fromto": f"0 0 0 {length} 0 0", "size": ".01", "material": "self"}
        xml.SubElement(body, "geom", {"name": name} | shape)
        limits = {"limited": "true", "range": f"-{turns} {turns}"} if turns else {}
        xml.SubElement(body, "joint", {"name": joint} | limits)
        xml.SubElement(actuators, "motor", name=joint, joint=joint)
        parent, position = body, f"{LINK} 0 0"
    finger.set("pos", position)
    parent.append(finger)
    return xml.tostring(root, encoding="unicode")


# (physics, task, reward, arguments of the environment). The reward is None for the task's own reward.
Made = tuple[Any, Any, Reward | None, dict[str, Any]]


def made(name: str, seed: int) -> Made:
    """Make the physics, the task, the reward and the environment's arguments of a task name."""
    body, goal = name.split("-", 1)
    if body == "cheetah":
        rewards: dict[str, Reward] = {
            "run-backwards": cheetah_backwards,
            "run-front": cheetah_on("bfoot"),
            "run-back": cheetah_on("ffoot"),
            "jump": cheetah_jump,
        }
        physics = cheetah.Physics.from_xml_string(*cheetah.get_model_and_assets())
        return physics, cheetah.Cheetah(random=seed), rewards[goal], {"time_limit": 10}
    if body == "walker":
        physics = walker.Physics.from_xml_string(*walker.get_model_and_assets())
        speed = {"walk-backwards": 1.0, "run-backwards": 8.0}[goal]
        limits = {"time_limit": 25, "control_timestep": 0.025}
        return physics, walker.PlanarWalker(speed, random=seed), walker_backwards(speed), limits
    if body == "hopper":
        physics = hopper.Physics.from_xml_string(*hopper.get_model_and_assets())
        limits = {"time_limit": 20, "control_timestep": 0.02}
        return physics, hopper.Hopper(True, random=seed), hopper_backwards, limits
    if body == "pendulum":
        physics = pendulum.Physics.from_xml_string(*pendulum.get_model_and_assets())
        return physics, pendulum.SwingUp(random=seed), pendulum_spin, {"time_limit": 20}
    if body == "ball_in_cup":
        physics = ball_in_cup.Physics.from_xml_string(*ball_in_cup.get_model_and_assets())
        return physics, BallInCup(random=seed), cup_spin, {"time_limit": 20, "control_timestep": 0.02}
    size = {"three_easy": 0.05, "three_hard": 0.015}[goal]
    physics = reacher.Physics.from_xml_string(three_links(), reacher.get_model_and_assets()[1])
    return physics, reacher.Reacher(size, random=seed), None, {"time_limit": 20}


def load(name: str, seed: int) -> Any:
    """Load a task as an environment of dm_control's interface."""
    physics, task, reward, arguments = made(name, seed)
    if reward is not None:
        task.get_reward = reward
    return control.Environment(physics, task, **arguments)
