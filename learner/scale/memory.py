"""What a learner takes of each rank's memory, reckoned before anything is made."""

from __future__ import annotations

from learner.agents.catalogue import described
from learner.networks.sizes import parameters
from learner.networks.spec import IMPALA_CHANNELS, NetworkSpec

BFLOAT16 = 2
OVERHEAD_BYTES = 100_000_000


def critic_parameters(spec: NetworkSpec) -> int:
    """How many numbers a critic learns, its table of embeddings included."""
    network = described(spec).networks(spec)["critic"]
    return parameters(network) + (spec.num_tasks * spec.embedding_size if spec.num_tasks > 1 else 0)


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
    """How many numbers an agent learns besides its critic: none where the critic itself acts."""
    networks = described(spec).networks(spec)
    return sum(parameters(network) for name, network in networks.items() if name not in ("critic", "target"))


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
    outputs = 6 * spec.heads * spec.outputs * number
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
