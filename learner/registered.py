"""Parts that are found by name: those of this project, and those that other packages register by entry points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import TypeVar

T = TypeVar("T")


def registered(kind: str, name: str, ours: Mapping[str, T], group: str, also: Sequence[str] = ()) -> T:
    """Return the part of this name, from `ours` or else from the entry points of the group.

    Raises ValueError if there is none, with the known names: those in `also`, which the caller resolves, come first.
    Loading an entry point may raise anything.
    """
    if name in ours:
        return ours[name]
    others = {point.name: point for point in entry_points(group=group)}
    if name not in others:
        raise ValueError(f"there is no {kind} {name!r}; there are {', '.join([*also, *ours, *others])}")
    found: T = others[name].load()
    return found
