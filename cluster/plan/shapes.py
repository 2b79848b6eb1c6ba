"""Checks that a run goes on with the same tasks: their order, observations, actions and episode limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.benchmarks.benchmark import Task
from cluster.errors import ConfigError

REPEATED = ", each of "
OBSERVATIONS, EPISODES = "observations", "episodes"
SEEN_AND_DONE = (OBSERVATIONS, "actions", "bounds of actions")  # the shapes that a policy depends on


def shapes(tasks: Sequence[Task]) -> dict[str, dict[str, str]]:
    """Return sizes, bounds and episode limit of every task, in words that a checkpoint keeps."""
    return {task.name: shape(task) for task in tasks}


def shape(task: Task) -> dict[str, str]:
    keys = [f"{key} {size}" for key, size in task.observation_keys if key]
    numbers = f"{task.observation_size + task.privileged_size} numbers" + (f" ({', '.join(keys)})" if keys else "")
    if task.privileged_keys:
        numbers += f", the last {task.privileged_size} for the critic alone"
    repeated = f"{REPEATED}{task.action_repeat} steps of the environment" if task.action_repeat > 1 else ""
    bounds = {"bounds of actions": task.bounds} if task.bounds else {}
    return {
        OBSERVATIONS: f"images of {' x '.join(map(str, task.image))}" if task.image else numbers,
        "actions": f"one of {task.num_actions}" if task.num_actions else f"{task.action_size} numbers",
        **bounds,
        EPISODES: f"{task.episode_limit} steps at most{repeated}",
    }


def check_order(run: str, saved: Sequence[str], tasks: Sequence[Task]) -> None:
    """Check that these are the tasks of a run, in its order. Raises ConfigError."""
    names = [task.name for task in tasks]
    if saved == names:
        return
    how = "in this order" if sorted(saved) == sorted(names) else f"not on {names}"
    raise ConfigError(f"--tasks: run {run} was trained on {list(saved)}, {how}; resume with those")


def check_shapes(
    run: str, saved: Mapping[str, Mapping[str, str]], tasks: Sequence[Task], only: Sequence[str] = ()
) -> None:
    """Check that the tasks' shapes are equal to the shapes `saved` with a checkpoint, or only the shapes that `only`
    names. A checkpoint without saved shapes, from an earlier version, passes. Raises ConfigError."""
    for task in tasks:
        for what, new in shape(task).items():
            old = saved.get(task.name, {}).get(what, new)
            if old != new and what == EPISODES and not only and REPEATED in old + new:
                raise ConfigError(
                    f"--actors.action-repeat: the episodes of {task.name} had {old} when run {run} was trained, and "
                    f"have {new} now: give it as it was then"
                )
            if old != new and (not only or what in only):
                raise ConfigError(
                    f"--tasks {task.name}: its {what} were {old} when run {run} was trained, and are {new} now: bring "
                    f"the environment of then back, or begin a run with what it has learned by `brc add-task`"
                )
