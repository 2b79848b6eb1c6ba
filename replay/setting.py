"""Defines a field of the configuration, with its bounds and whether a resumed run may change it."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Resume = Literal["", "fixed", "fixed in lock step"]


def setting(default: T, least: float | None = None, most: float | None = None, *, resume: Resume = "") -> T:
    """Return a dataclass field with this default.

    `least` and `most` are the inclusive bounds of a number. A resumed run cannot change a field that is `fixed`. A
    resumed serial run also cannot change a field that is `fixed in lock step`, since it resumes within its episodes.
    """
    bounds = None if least is None or most is None else (float(least), float(most))
    metadata: dict[str, Any] = {"bounds": bounds, "resume": resume}
    found: T = field(default=default, metadata=metadata)
    return found
