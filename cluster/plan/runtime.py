"""Reads the Ray runtime environment of a benchmark's processes, whose packages replace the run's own, from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cluster.config.schema import ActorsConfig
from cluster.errors import ConfigError

# Fields of Ray's runtime environments that can hold this project's packages too. Ray checks their values.
FIELDS = ("pip", "uv", "conda", "container", "image_uri", "py_executable", "env_vars", "config")

ONE_OF = ("pip", "uv", "conda", "container", "image_uri")


def runtime(actors: ActorsConfig, benchmark: str) -> dict[str, Any]:
    """Return the runtime environment of a benchmark's actors and evaluator; {} means the run's own.

    Raises ConfigError for a file that holds no runtime environment.
    """
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
