"""Options of a run by their paths: values, flags, bounds, and which of them a resumed run cannot change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Any

from cluster.config.schema import Config
from replay.setting import Resume


def get(config: Config, path: str) -> Any:
    """The value of a field by its path, such as learner.width."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def flag(path: str) -> str:
    """--learner.batch-size for learner.batch_size."""
    return "--" + path.replace("_", "-")


def options(section: Any, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Every option below a section of the configuration, with its path."""
    for field in fields(section):
        value = getattr(section, field.name)
        if is_dataclass(value):
            yield from options(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field


def of_resume(kind: Resume) -> tuple[str, ...]:
    """The paths of options with which a resume deals so."""
    return tuple(path for path, field in options(Config()) if field.metadata.get("resume") == kind)


# Inclusive bounds of every number in the configuration.
BOUNDS: dict[str, tuple[float, float]] = {
    path: field.metadata["bounds"] for path, field in options(Config()) if field.metadata.get("bounds")
}
# What a resumed run cannot change. It shapes what is in the checkpoint, or the returns that rewards are scaled by, or
# its change would make the rate limiter find samples that are long overdue or taken too early.
FIXED = of_resume("fixed")
# In lock step a resumed run goes on in the midst of its episodes, so it needs the environments and streams it had.
FIXED_IN_LOCK_STEP = of_resume("fixed in lock step")
