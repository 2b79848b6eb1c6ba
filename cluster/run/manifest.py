"""The manifest of a checkpoint: the state of its run. learner/state/checkpoint.py adds the list of files."""

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
    """The state of a run at a checkpoint.

    Attributes:
        steps: environment steps of each task after which the run was to end.
        replay: name of replay's snapshot.
        incarnation: the highest incarnation of its actors.
        shapes: observations, actions and episode limits, by task (cluster/plan/shapes.py).
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
    """Return the manifest as it is in the file, where each option is a field of its own."""
    found = encode(manifest)
    result: dict[str, Any] = found | found.pop("options")
    return result


def read_manifest(checkpoints: Checkpoints, name: str) -> Manifest:
    """Return the manifest of an existing checkpoint. Raises CheckpointError, naming the file, when it is damaged."""
    found = checkpoints.manifest(name)
    try:
        return decode(Manifest, found | {"options": {one: found[one] for one in FIXED_IN_LOCK_STEP if one in found}})
    except ValueError as error:
        path = f"{checkpoints.url(name)}/manifest.json"
        reason = " ".join(str(error).split()[:20])
        raise CheckpointError(f"{path} is not that of a run ({reason}); {checkpoints.way_out(name)}") from error


def serial_options(config: Config) -> dict[str, Any]:
    """Return the options that a serial run must keep to go on, with their values."""
    return {one: get(config, one) for one in FIXED_IN_LOCK_STEP}
