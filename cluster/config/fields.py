"""Options of a run by their paths: values, flags, bounds, and the options that a resumed run cannot change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Any

from cluster.config.schema import Config
from cluster.errors import ConfigError
from replay.setting import Resume


def get(config: Config, path: str) -> Any:
    """Return the value of a field by its path, such as learner.width."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def flag(path: str) -> str:
    """Return the flag of a path: --learner.batch-size for learner.batch_size."""
    return "--" + path.replace("_", "-")


def options(section: Any, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Yield the path and the field of every option below a section of the configuration."""
    for field in fields(section):
        value = getattr(section, field.name)
        if is_dataclass(value):
            yield from options(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field


def of_resume(kind: Resume) -> tuple[str, ...]:
    """Return the paths of the options whose `resume` setting is `kind`."""
    return tuple(path for path, field in options(Config()) if field.metadata.get("resume") == kind)


# Inclusive bounds of every number in the configuration.
BOUNDS: dict[str, tuple[float, float]] = {
    path: field.metadata["bounds"] for path, field in options(Config()) if field.metadata.get("bounds")
}
# Options that a resumed run cannot change. Each shapes what is in the checkpoint or the returns that rewards are scaled
# by, or its change would make samples long overdue or too early for the rate limiter.
FIXED = of_resume("fixed")
# A resumed serial run goes on in the middle of its episodes, so it needs the same environments and random streams.
FIXED_IN_LOCK_STEP = of_resume("fixed in lock step")


def check_bound(path: str, value: float, named: str) -> None:
    """Check that a field may have this value, which `named` gave it. Raises ConfigError."""
    least, most = BOUNDS[path]
    if not least <= value <= most:  # not a number is in no range
        nearest = least if value < least else most
        raise ConfigError(f"{named} {value} is out of range: it must be from {least:g} to {most:g}, try {nearest:g}")
