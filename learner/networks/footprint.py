"""What a learner takes: the shape of its networks, and the memory of each rank, reckoned before anything is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

BFLOAT16 = 2
IMPALA_CHANNELS = (16, 32, 32)
OVERHEAD_BYTES = 100_000_000


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that decides the shape of the networks; two specs that differ cannot share a checkpoint."""

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


def critic_parameters(spec: NetworkSpec) -> int:
    """How many numbers a Critic learns."""
    width, outputs = spec.width, spec.num_bins * (spec.most_actions if spec.discrete else 1)
    inputs = (spec.features if spec.discrete else spec.observation_size + spec.action_size) + spec.embedding_inputs
    head = (inputs + 3) * width + spec.depth * 2 * (width + 3) * width + (width + 1) * outputs
    encoder = 0
    if spec.image:
        channels = [spec.image[0], *(spec.encoder_width * count for count in IMPALA_CHANNELS)]
        for before, after in pairwise(channels):
            encoder += (9 * before + 1) * after + 4 * (9 * after + 1) * after
    return encoder + spec.heads * head + (spec.num_tasks * spec.embedding_size if spec.num_tasks > 1 else 0)


def encoder_activations(spec: NetworkSpec) -> int:
    """Numbers that an image encoder keeps of one image for the way back."""
    if not spec.image:
        return 0
    frames, height, width = spec.image
    found = frames * height * width
    for count in IMPALA_CHANNELS:
        channels = count * spec.encoder_width
        found += channels * height * width  # what is pooled
        height, width = -(-height // 2), -(-width // 2)
        found += 9 * channels * height * width  # and of both blocks: sums, convolutions, ReLUs, places of maxima
    return found


def policy_parameters(spec: NetworkSpec) -> int:
    """How many numbers a Policy learns: none where the critic itself acts."""
    if spec.discrete:
        return 0
    inputs, width = spec.observation_size + spec.embedding_inputs, spec.policy_width
    return (inputs + 3) * width + spec.policy_depth * 2 * (width + 3) * width + 2 * (width + 1) * spec.action_size


def footprint(
    spec: NetworkSpec,
    batch_size: int,
    most_batches: int,
    precision: str,
    ranks: int,
    sharded: bool,
    replicas: int,
    device: str,
) -> dict[str, int]:
    """Bytes that each rank takes of its device's memory at its peak, by purpose.

    Args:
        batch_size: rows in an update, of which a rank has its part.
        most_batches: batches that are at hand at once.
        sharded: whether a rank holds its part of critic and target alone.
    """
    number = 8 if precision == "float64" else 4
    # A CPU may have to round its factors in float32 (learner.scale.precision).
    half, factor = precision == "bf16", BFLOAT16 if precision == "bf16" and device != "cpu" else number
    parts = ranks // replicas if sharded else 1
    critic, policy = critic_parameters(spec), policy_parameters(spec)
    rows = batch_size // ranks
    # A layer keeps what went into its LayerNorm and what came out of the ReLU behind it, for the way back.
    layers = spec.heads * (1 + 2 * spec.depth) * 2 * spec.width + (1 + 2 * spec.policy_depth) * 2 * spec.policy_width
    # Logits, softmaxes and their gradients.
    outputs = 6 * spec.heads * spec.num_bins * (spec.most_actions if spec.discrete else 1) * number
    outputs += encoder_activations(spec) * number
    row = (2 if spec.image else 8) * spec.observation_size + 4 * (spec.action_size + 2) + 8
    block = 2 * (spec.width + 3) * spec.width
    found = {
        "critic": critic * number // parts,
        "target": critic * number // parts,
        "critic_gradients": critic * number // parts,
        "critic_moments": 2 * critic * number // parts,
        "policy": 4 * policy * number,
        # Of sharded layers, two blocks are whole at a time, and the gradient of one; in bfloat16 else a copy of all.
        "gathered": (2 * block * factor + block * number) if parts > 1 else 0,
        "rounded": critic * factor if half and parts == 1 else 0,
        # A rounded factor that is kept beside its origin adds half.
        "activations": rows * (layers * factor * (3 if half and device == "cpu" else 2) // 2 + outputs),
        "batches": 2 * most_batches * row * batch_size,
    }
    if device == "cpu":
        # What libraries hold, and what was freed but not given back (docs/performance.md).
        found["overhead"] = sum(found.values()) // 4 + OVERHEAD_BYTES
        # A checkpoint is written from a copy, which is in the machine's memory.
        found["checkpoint"] = 4 * critic * number // parts
    return found


def in_words(needed: dict[str, int]) -> str:
    """A footprint as part of a sentence."""
    return ", ".join(f"{purpose.replace('_', ' ')} {count:,}" for purpose, count in needed.items() if count)
