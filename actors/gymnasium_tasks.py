"""Any environment that gymnasium can make, as a task: gymnasium/<id> or gymnasium/<module to import>:<id>."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from actors import here
from actors.catalogue import Task, UnknownNameError


def make(library_id: str, **options: Any) -> Any:
    """The environment, which renders nothing. Its `max_episode_steps`, if they are named, hold whatever wrappers of its
    own make of them. Its module may be where `brc` was called."""
    import gymnasium

    here.enter()
    made: Any = gymnasium.make(library_id, disable_env_checker=True, **options)
    limit = options.get("max_episode_steps")
    if limit is None or isinstance(made, gymnasium.wrappers.TimeLimit):
        return made
    return gymnasium.wrappers.TimeLimit(made, limit)


@cache
def describe(name: str) -> Task:
    """The task of a name; makes the environment once, to ask it for its sizes.

    A dictionary of observations is flattened in the order of its space. Raises UnknownNameError with the reason why it
    cannot be made, or not be trained on.
    """
    from gymnasium import spaces

    library_id = name.split("/", 1)[1]
    try:
        environment = make(library_id)
    except ModuleNotFoundError as error:
        missing = getattr(error.__cause__ or error, "name", "")  # gymnasium's own has no name
        raise UnknownNameError(
            f"{name} cannot be made, since there is no module {missing}: install it, or call brc in its folder"
        ) from error
    except Exception as error:  # whatever a package raises that is loaded by name
        raise UnknownNameError(f"{name} cannot be made: {type(error).__name__}: {error}") from error
    try:
        observed: Any = environment.observation_space
        actions: Any = environment.action_space
        found: dict[str, Any] = observed.spaces if isinstance(observed, spaces.Dict) else {"": observed}
        for key, space in found.items():
            if not isinstance(space, spaces.Box):
                raise UnknownNameError(
                    f"{name} observes {f'{key}, ' if key else ''}{space}: only a Box can be learned from"
                )
        if not isinstance(actions, (spaces.Box, spaces.Discrete)):
            raise UnknownNameError(f"{name} takes {actions}: only Box and Discrete actions are learned")
        limit = environment.spec.max_episode_steps
        if limit is None:
            raise UnknownNameError(f"{name} has no max_episode_steps: register it with one")
        keys = tuple((key, math.prod(space.shape)) for key, space in found.items())
        num_actions = int(actions.n) if isinstance(actions, spaces.Discrete) else 0
        return Task(name, keys, math.prod(actions.shape or ()), limit, library_id, num_actions=num_actions)
    finally:
        environment.close()
