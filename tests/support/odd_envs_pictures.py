"""Environments that render in various formats, or not at all. Importing this registers them."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import gymnasium
import numpy as np

from tests.support.odd_envs_actions import Odd


class Unseen(Odd):
    """Has no `render` method of its own."""


class Undrawn(Odd):
    """Its renderer needs a package that is not installed."""

    def render(self) -> Any:
        raise gymnasium.error.DependencyNotInstalled("crayons is not installed, run `pip install crayons`")


class Invisible(Odd):
    def render(self) -> Any:
        return None


class Painted(Odd):
    """Renders in the format `how`. The brightness grows from step to step, up to half of the maximum."""

    SHAPES: ClassVar = {"grey": (12, 16), "flat": (12, 16, 1), "clear": (12, 16, 4), "list": (2, 12, 16, 3)}

    def __init__(self, how: str = "", **_: Any) -> None:
        super().__init__()
        self.how = how
        kinds = {"floats": np.float64, "bright": np.float64, "wide": np.float32, "deep": np.uint16}
        self.kept = np.zeros(self.SHAPES.get(how, (12, 16, 3)), kinds.get(how, np.uint8))

    def render(self) -> Any:
        if self.how == "exits":
            os._exit(0)
        if self.how == "sizes":
            return np.zeros((12 + self.t % 2, 16, 3), np.uint8)
        full = {"floats": 1.0, "bright": 1.0, "deep": 65535}.get(self.how, 255)
        self.kept[...] = full * self.t / 40
        if self.how == "bright":  # one value above the maximum, and one infinite
            self.kept[0, :2, 0] = [1.02, np.inf]
        return list(self.kept) if self.how == "list" else self.kept


class Modeless(Odd):
    """Does not accept the argument render_mode."""

    def __init__(self) -> None:
        super().__init__()


for kind in (Unseen, Undrawn, Invisible, Modeless):
    gymnasium.register(f"{kind.__name__}-v0", f"{__name__}:{kind.__name__}", max_episode_steps=100)
for how in ("grey", "flat", "clear", "list", "floats", "bright", "wide", "deep", "same", "sizes", "exits"):
    gymnasium.register(f"Painted_{how}-v0", f"{__name__}:Painted", max_episode_steps=100, kwargs={"how": how})
