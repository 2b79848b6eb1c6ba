"""Packages that a benchmark's processes have instead of the run's own: a Ray runtime environment in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cluster.config.schema import ActorsConfig
from cluster.errors import ConfigError

# What Ray makes an environment from that can hold our packages too; it checks the rest.
FIELDS = ("pip", "uv", "conda", "container", "image_uri", "py_executable", "env_vars", "config")

ONE_OF = ("pip", "uv", "conda", "container", "image_uri")


def runtime(actors: ActorsConfig, benchmark: str) -> dict[str, Any]:
    """Of a benchmark's actors and evaluator; {} for the run's own. Raises ConfigError for a file that is not one."""
    if benchmark not in actors.runtime:
        return {}
    file = Path(actors.runtime[benchmark])
    option = f"--actors.runtime {benchmark} {file}"
    try:
        found = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{option}: it cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{option}: it holds {type(found).__name__}, not fields such as `pip: [mujoco==3.1.6]`")
    unknown = [key for key in found if key not in FIELDS]
    if unknown:
        raise ConfigError(f"{option}: it has the field {unknown[0]!r}; there are {', '.join(FIELDS)}")
    variables = found.get("env_vars", {})
    if not isinstance(variables, dict):
        raise ConfigError(f"{option}: env_vars is {variables!r}, not names and values such as MUJOCO_GL: egl")
    if sum(key in found for key in ONE_OF) > 1:
        raise ConfigError(f"{option}: of {', '.join(ONE_OF)} it may have one")
    return found | {"env_vars": {name: str(value) for name, value in variables.items()}}
