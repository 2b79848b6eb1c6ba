"""Any environment that gymnasium can make, as a task: gymnasium/<id> or gymnasium/<module to import>:<id>."""

from __future__ import annotations

import copy
import importlib
import math
from dataclasses import replace
from functools import cache
from typing import Any

from actors.backends import here
from actors.backends.actions import bounds
from actors.backends.returned import BadEnvironment, Exited
from actors.benchmarks.benchmark import Benchmark, Task
from actors.benchmarks.catalogue import UnknownNameError
from actors.closing import close

MOST_ACTIONS = 10_000  # discrete actions: a critic for so many has a million outputs


def make(library_id: str, **options: Any) -> Any:
    """Make the environment, with today's signatures below all wrappers that gymnasium adds. It renders nothing unless
    `options` say so.

    Its module may be in the folder where `brc` was called. A `max_episode_steps` in `options` always holds, even if the
    environment's own wrappers ignore it. Raises Exited when the module or the environment calls sys.exit.
    """
    try:
        return made(library_id, options)
    except SystemExit as error:
        raise Exited(f"gymnasium/{library_id}", error) from error


def made(library_id: str, options: dict[str, Any]) -> Any:
    """Make the environment as `make` does, but let sys.exit pass."""
    import gymnasium
    from gymnasium.envs import registration

    from actors.backends.signatures import TodaysSignatures

    here.enter()
    module, _, name = library_id.rpartition(":")
    if module:
        importlib.import_module(module)
    namespace, short, version = registration.parse_env_id(name)
    if version is None and (latest := registration.find_highest_version(namespace, short)) is not None:
        name = registration.get_env_id(namespace, short, latest)
    registered = gymnasium.spec(name)
    if registered.entry_point is None:
        raise BadEnvironment(f"{name} is registered without an entry_point")
    creator: Any = registered.entry_point
    if not callable(creator):
        creator = registration.load_env_creator(creator)
    spec = copy.copy(registered)
    spec.entry_point = lambda **given: TodaysSignatures(creator(**given), f"gymnasium/{library_id}")
    environment: Any = gymnasium.make(spec, disable_env_checker=True, **options)
    limit = options.get("max_episode_steps")
    if limit is None or isinstance(environment, gymnasium.wrappers.TimeLimit):
        return environment
    return gymnasium.wrappers.TimeLimit(environment, limit)


@cache
def describe(name: str) -> Task:
    """Return the task of a name. The environment is made once, to read its sizes and to try a step.

    A dictionary of observations is flattened in the order of its space. Raises UnknownNameError, with the reason, if
    the environment cannot be made or cannot be trained on.
    """
    library_id = name.split("/", 1)[1]
    try:
        environment = make(library_id)
    except ModuleNotFoundError as error:
        missing = getattr(error.__cause__ or error, "name", "")  # gymnasium's own error has no name
        raise UnknownNameError(
            f"{name} cannot be made, since there is no module {missing}: install it, or call brc in its folder"
        ) from error
    except Exited as error:
        raise UnknownNameError(f"{error} when it was imported and made") from error
    except Exception as error:  # a package that is loaded by name may raise anything
        raise UnknownNameError(f"{name} cannot be made: {said(error)}") from error
    try:
        task = described(name, library_id, environment)
        try_out(task, environment)
        return replace(task, bounds=bounds(environment.action_space))  # after `try_out` has checked them
    finally:
        close(environment)


def described(name: str, library_id: str, environment: Any) -> Task:
    """Return the task as its spaces describe it. Raises UnknownNameError for spaces that cannot be learned."""
    from gymnasium import spaces

    observed: Any = environment.observation_space
    actions: Any = environment.action_space
    found: dict[str, Any] = observed.spaces if isinstance(observed, spaces.Dict) else {"": observed}
    if isinstance(observed, spaces.Dict) and not all(isinstance(key, str) and key for key in found):
        raise UnknownNameError(f"{name} observes a Dict with the keys {list(found)}: each needs a word for its key")
    for key, space in found.items():
        if not isinstance(space, spaces.Box):
            raise UnknownNameError(
                f"{name} observes {f'{key}, ' if key else ''}{space}: only a Box can be learned from"
            )
    if not isinstance(actions, (spaces.Box, spaces.Discrete)):
        raise UnknownNameError(f"{name} takes {actions}: only Box and Discrete actions are learned")
    keys = tuple((key, math.prod(space.shape)) for key, space in found.items())
    for what, size, space in (
        ("observes", sum(size for _, size in keys), observed),
        ("takes", math.prod(actions.shape or ()), actions),
    ):
        if not size:
            raise UnknownNameError(f"{name} {what} {space}, which has no number in it: there is nothing to learn")
    limit = environment.spec.max_episode_steps
    if limit is None:
        raise UnknownNameError(f"{name} has no max_episode_steps: register it with one")
    num_actions = int(actions.n) if isinstance(actions, spaces.Discrete) else 0
    if num_actions > MOST_ACTIONS:
        raise UnknownNameError(
            f"{name} takes {actions}: a critic has outputs for each of its actions, of which there may be at most "
            f"{MOST_ACTIONS:,}"
        )
    return Task(
        name=name,
        observation_keys=keys,
        action_size=math.prod(actions.shape or ()),
        episode_limit=limit,
        library_id=library_id,
        num_actions=num_actions,
    )


def try_out(task: Task, environment: Any) -> None:
    """Reset the environment and make a step. Raises UnknownNameError, with the reason, if that fails."""
    import numpy as np

    from actors.backends.gymnasium import Copy

    try:
        one = Copy(task, 0, environment)
        one.reset()
        one.step(one.taken(np.zeros((1, task.action_size), np.float32))[0])
    except BadEnvironment as error:
        raise UnknownNameError(str(error)) from error
    except Exited as error:
        raise UnknownNameError(f"{error} when it was reset and made a step") from error
    except Exception as error:  # an environment may raise anything
        raise UnknownNameError(f"{task.name} cannot be stepped: {said(error)}") from error


def said(error: BaseException) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


BENCHMARK = Benchmark(name="gymnasium", backends=("gymnasium",), describe=describe)
