"""Everything that decides the shape of an agent's networks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

IMPALA_CHANNELS = (16, 32, 32)


@dataclass(frozen=True)
class NetworkSpec:
    """Two specs that differ cannot share a checkpoint."""

    observation_size: int
    action_size: int
    num_tasks: int
    width: int = 512
    depth: int = 2
    heads: int = 2
    policy_width: int = 256
    policy_depth: int = 1
    embedding_size: int = 32
    num_bins: int = 101
    embedding_norm: str = "l2"
    num_actions: tuple[int, ...] = ()  # of each task, where actions are discrete
    image: tuple[int, ...] = ()  # (frames, height, width), where observations are images
    encoder_width: int = 1  # multiplies the image encoder's channels
    normalize_observations: bool = False
    network: str = "bronet"  # of registry.TRUNKS, or registered by another project

    @property
    def discrete(self) -> bool:
        return bool(self.num_actions)

    @property
    def most_actions(self) -> int:
        """Actions of the task that has most."""
        return max(self.num_actions)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Of one observation in a batch."""
        return self.image or (self.observation_size,)

    @property
    def features(self) -> int:
        """Of what a discrete critic's heads see of an observation."""
        if not self.image:
            return self.observation_size
        _, height, width = self.image
        for _ in IMPALA_CHANNELS:  # each stage halves them, rounding up
            height, width = -(-height // 2), -(-width // 2)
        return IMPALA_CHANNELS[-1] * self.encoder_width * height * width

    @property
    def embedding_inputs(self) -> int:
        """Columns that the task embedding adds to an input: none when there is a single task."""
        return self.embedding_size if self.num_tasks > 1 else 0


def to_json(spec: NetworkSpec) -> dict[str, Any]:
    """Its fields, with lists for tuples."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(spec).items()}


def from_json(saved: dict[str, Any]) -> NetworkSpec:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
    return NetworkSpec(**fields)
