"""Scores as each community reports them, so that tasks of one benchmark, and benchmarks, can be averaged."""

from __future__ import annotations

from actors.benchmarks.atari import human_normalized
from actors.benchmarks.catalogue import Task
from actors.benchmarks.humanoid_bench import solved_at

RETURN_OF_ONE = {"dmc": 1000.0, "dmc-extra": 1000.0}  # the return that counts as a score of 1
BY_SUCCESS = {"metaworld", "shadow-hand"}  # whose score is the share of episodes with success


def normalized(task: Task, episode_return: float, success: float) -> float | None:
    """The score of an episode, or of means over episodes; None where the community has agreed on none.

    dm_control: return / 1000. MetaWorld and the Shadow hand: whether the episode had success at some step.
    HumanoidBench: return over the return at which the library calls the task solved. Atari: 0 is what a random player
    gets, 1 a human.
    """
    if task.benchmark in BY_SUCCESS:
        return float(success)
    if task.benchmark in RETURN_OF_ONE:
        return episode_return / RETURN_OF_ONE[task.benchmark]
    if task.benchmark == "atari":
        return human_normalized(task, episode_return)
    if task.benchmark == "humanoid-bench":
        return episode_return / solved_at(task)
    return None
