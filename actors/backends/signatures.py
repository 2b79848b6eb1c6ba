"""Gives environments with the old signatures of gym before 0.26 the signatures of today."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium

from actors.backends.returned import BadEnvironment, brief


class TodaysSignatures(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Wraps the registered environment itself, below the wrappers that unpack its return values.

    An old `reset` takes no seed and returns the observation alone. An old `step` returns (observation, reward, done,
    info), where info says whether an episode was only cut. `name` is the environment's name in errors.
    """

    def __init__(self, environment: Any, name: str) -> None:
        super().__init__(environment)
        self.name = name
        names = inspect.signature(environment.reset).parameters
        anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in names.values())
        self.takes = [name for name in ("seed", "options") if anything or name in names]

    @property
    def spec(self) -> Any:  # type: ignore[override]
        """The environment's own spec: gymnasium counts the wrappers that a spec names."""
        return self.env.spec

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        given: dict[str, Any] = {"seed": seed, "options": options}
        if seed is not None and "seed" not in self.takes:
            gymnasium.Env.reset(self.unwrapped, seed=seed)
            if hasattr(self.unwrapped, "seed"):
                self.unwrapped.seed(seed)
        found: Any = self.env.reset(**{name: given[name] for name in self.takes})
        pair = isinstance(found, (tuple, list)) and len(found) == 2
        if pair and (isinstance(found[1], Mapping) or (found[1] is None and isinstance(found, tuple))):
            return found[0], found[1] or {}
        return found, {}

    def step(self, action: Any) -> Any:
        """Step the environment. Raises BadEnvironment if the result has neither the old nor the new form."""
        found: Any = self.env.step(action)
        if not isinstance(found, (tuple, list)) or len(found) not in (4, 5):
            raise BadEnvironment(
                f"{self.name}: its step returned {brief(found)}, not (observation, reward, terminated, truncated, info)"
            )
        if len(found) == 5:
            return tuple(found)
        observation, reward, done, info = found
        cut = isinstance(info, Mapping) and bool(info.get("TimeLimit.truncated", False))
        return observation, reward, False if cut else done, cut, info
