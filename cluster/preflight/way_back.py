"""Checks whether a serial run can go on exactly where it stopped: this depends on its environments' generators."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

from actors.backends.returned import BadEnvironment
from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import backend_of
from cluster.errors import ConfigError
from cluster.plan.plan import Plan
from cluster.run.folder import existing_run, load_config


def strays(plan: Plan) -> list[str]:
    """Return the tasks of a serial run that cannot be brought back to an earlier state, as a few steps show.

    Only tasks of gymnasium are tried. Of the others it is known. Raises ConfigError when a run with such
    tasks is to be resumed, and for a task that cannot make these steps.
    """
    config = plan.config
    if config.execution != "serial":
        return []
    tasks = [task for task in plan.tasks if backend_of(task, config.actors.backend) == "gymnasium"]
    try:
        with chdir("."):  # environments may change the directory
            found = [task.name for task in tasks if not led_back(task, config.seed)]
    except BadEnvironment as error:
        raise ConfigError(f"--tasks: {error}") from error
    found += [task.name for task in plan.tasks if not task.repeatable]
    if found and config.resume and config.name:
        begun = load_config(existing_run(Path(config.runs_folder), config.name))[1]
        if begun.execution == "serial":
            raise ConfigError(f"--resume: {sentence(found)}; go on with --execution distributed")
    return found


def led_back(task: Task, seed: int) -> bool:
    from actors.backends.gymnasium import is_led_back

    return is_led_back(task, seed)


def sentence(names: list[str]) -> str:
    """Return why a serial run with these tasks cannot go on exactly."""
    return (
        f"{', '.join(names)} cannot be led back to where it was, since its steps draw random numbers that are lost, "
        "others than np_random, numpy's and Python's, or it carries something over from episode to episode"
    )
