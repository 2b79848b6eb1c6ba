"""What a checkpoint says of the run that it is of, beside what its files are (learner/state/checkpoint.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cluster.config.fields import FIXED_IN_LOCK_STEP, get
from cluster.config.schema import Config
from dashboards.codec import decode, encode
from dashboards.progress import ProgressState
from learner.state.checkpoint import CheckpointError, Checkpoints


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A run at one of its checkpoints.

    Attributes:
        steps: environment steps of each task that it was to make.
        replay: name of replay's snapshot.
        incarnation: the highest of its actors.
        shapes: what environments show and take, by task (cluster/plan/shapes.py).
        options: the values of FIXED_IN_LOCK_STEP.
    """

    env_steps: int
    steps: int
    updates: int
    replay: str
    evaluations_begun: int
    incarnation: int
    tasks: list[str]
    shapes: dict[str, dict[str, str]] = field(default_factory=dict)
    execution: str
    progress: ProgressState
    time: float
    options: dict[str, Any] = field(default_factory=dict)


def to_json(manifest: Manifest) -> dict[str, Any]:
    """As it is in the file, where options have the names of fields."""
    found = encode(manifest)
    result: dict[str, Any] = found | found.pop("options")
    return result


def read_manifest(checkpoints: Checkpoints, name: str) -> Manifest:
    """Of a checkpoint that is there. Raises CheckpointError, naming the file, when it is damaged."""
    found = checkpoints.manifest(name)
    try:
        return decode(Manifest, found | {"options": {one: found[one] for one in FIXED_IN_LOCK_STEP if one in found}})
    except ValueError as error:
        path = f"{checkpoints.url(name)}/manifest.json"
        reason = " ".join(str(error).split()[:20])
        raise CheckpointError(f"{path} is not that of a run ({reason}); {checkpoints.way_out(name)}") from error


def serial_options(config: Config) -> dict[str, Any]:
    """What a run in lock step cannot go on without."""
    return {one: get(config, one) for one in FIXED_IN_LOCK_STEP}
