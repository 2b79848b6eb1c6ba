"""Options of a run by their names: a field's value, and what it is called on the command line."""

from __future__ import annotations

from typing import Any

from cluster.config.schema import Config


def get(config: Config, path: str) -> Any:
    """The value of a field by its path, such as learner.width."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def flag(path: str) -> str:
    """--learner.batch-size for learner.batch_size."""
    return "--" + path.replace("_", "-")
