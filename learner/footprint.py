"""What a learner takes: the shape of its networks, and the memory of each rank, reckoned before anything is made."""

from __future__ import annotations

from dataclasses import dataclass

BFLOAT16 = 2
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

    @property
    def embedding_inputs(self) -> int:
        """Columns that the task embedding adds to an input: none when there is a single task."""
        return self.embedding_size if self.num_tasks > 1 else 0


def critic_parameters(spec: NetworkSpec) -> int:
    """How many numbers a Critic learns."""
    inputs = spec.observation_size + spec.action_size + spec.embedding_inputs
    width, bins = spec.width, spec.num_bins
    head = (inputs + 3) * width + spec.depth * 2 * (width + 3) * width + (width + 1) * bins
    return spec.heads * head + (spec.num_tasks * spec.embedding_size if spec.num_tasks > 1 else 0)


def policy_parameters(spec: NetworkSpec) -> int:
    """How many numbers a Policy learns."""
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
    # A CPU may have to round its factors in float32 (learner.precision).
    half, factor = precision == "bf16", BFLOAT16 if precision == "bf16" and device != "cpu" else number
    parts = ranks // replicas if sharded else 1
    critic, policy = critic_parameters(spec), policy_parameters(spec)
    rows = batch_size // ranks
    # A layer keeps what went into its LayerNorm and what came out of the ReLU behind it, for the way back.
    layers = spec.heads * (1 + 2 * spec.depth) * 2 * spec.width + (1 + 2 * spec.policy_depth) * 2 * spec.policy_width
    outputs = 6 * spec.heads * spec.num_bins * number  # logits, softmaxes and their gradients
    row = 4 * (2 * spec.observation_size + spec.action_size + 2) + 8
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
