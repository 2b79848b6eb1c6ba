"""Vectorised simulators as tasks: vector/<id>, vector/<module to import>:<id>, or vector/<module>:<function>.

A function takes `num_envs` and returns a `gymnasium.vector.VectorEnv`. All copies of an actor are one such environment.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from actors.backends.actions import bounds
from actors.backends.returned import BadEnvironment, Exited
from actors.benchmarks.benchmark import Benchmark, Task
from actors.benchmarks.catalogue import UnknownNameError
from actors.benchmarks.gymnasium_tasks import described, said
from actors.closing import close

LIMITS = ("max_episode_steps", "max_episode_length")  # gymnasium's name, and that of Isaac Lab and mjlab


@cache
def describe(name: str) -> Task:
    """Return the task of a name. A simulator of two copies is made, to read its sizes and to try a step.

    Raises UnknownNameError, with the reason, if it cannot be made or cannot be trained on.
    """
    import numpy as np

    from actors.backends.vector import VectorEnvironment, autoreset, make

    library_id = name.split("/", 1)[1]
    environment: Any = None
    try:
        environment = make(library_id, 2)
        mode = autoreset(name, environment)
        spaces = SimpleNamespace(
            observation_space=environment.single_observation_space,
            action_space=environment.single_action_space,
            spec=SimpleNamespace(max_episode_steps=limit_of(environment)),
        )
        task = replace(described(name, library_id, spaces), bounds=bounds(spaces.action_space), repeatable=False)
        tried = VectorEnvironment(task, [0, 1], environment=environment)
        tried.reset()
        tried.send(np.zeros((2, task.action_size), np.float32))
        tried.recv()
        if mode == "Disabled":
            tried.restart(np.array([1]))
        return task
    except UnknownNameError:
        raise
    except (BadEnvironment, Exited) as error:
        raise UnknownNameError(str(error)) from error
    except Exception as error:  # a package that is loaded by name may raise anything
        raise UnknownNameError(f"{name} cannot be made or stepped: {said(error)}") from error
    finally:
        if environment is not None:
            close(environment)


def limit_of(environment: Any) -> int | None:
    """Return the steps after which an environment cuts its episodes; None if it does not tell."""
    places = (getattr(environment, "spec", None), environment, getattr(environment, "unwrapped", None))
    for place in places:
        for key in LIMITS:
            found = getattr(place, key, None)
            if found is not None and math.isfinite(float(found)):
                return int(found)
    return None


BENCHMARK = Benchmark(name="vector", backends=("vector",), describe=describe)
