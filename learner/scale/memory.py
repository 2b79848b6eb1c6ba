"""Estimates the memory that each rank of a learner needs, before anything is allocated."""

from __future__ import annotations

import math

from learner.agents.catalogue import described
from learner.networks.description import BatchNorm, Network, placed
from learner.networks.sizes import activations, largest_residual, parameters
from learner.networks.spec import IMPALA_CHANNELS, NetworkSpec
from learner.spec import Sharding

BFLOAT16 = 2
OVERHEAD_BYTES = 150_000_000


def normalises_batch(network: Network) -> bool:
    """Whether the rows of a batch depend on each other in a network."""
    return any(isinstance(place.layer, BatchNorm) for place in placed(network))


def critic_parameters(spec: NetworkSpec) -> int:
    """Return the number of learned parameters of a critic, its embedding table included."""
    network = described(spec).networks(spec)["critic"]
    return parameters(network) + spec.learned_embeddings


def encoder_activations(spec: NetworkSpec) -> int:
    """Return how many numbers an image encoder keeps of one image for the backward pass."""
    if not spec.image:
        return 0
    frames, height, width = spec.image
    found = frames * height * width
    for count in IMPALA_CHANNELS:
        channels = count * spec.encoder_width
        found += channels * height * width  # the input of the pooling
        height, width = -(-height // 2), -(-width // 2)
        found += 9 * channels * height * width  # both blocks: sums, convolutions, ReLUs, indices of maxima
    return found


def policy_parameters(spec: NetworkSpec) -> int:
    """Return the number of learned parameters outside the critic; 0 where the critic itself acts."""
    networks = described(spec).networks(spec)
    return sum(parameters(network) for name, network in networks.items() if name not in ("critic", "target"))


def footprint(
    spec: NetworkSpec,
    batch_size: int,
    most_batches: int,
    precision: str,
    ranks: int,
    sharding: Sharding,
    replicas: int,
    device: str,
    task_gradients: bool = False,
) -> dict[str, int]:
    """Return the peak memory, in bytes, of each rank on its device, by purpose.

    Args:
        batch_size: rows of an update, over all ranks.
        most_batches: number of batches in memory at once.
        sharding: how the ranks share the critic (learner.scale.sharding).
        task_gradients: whether gradients of tasks are compared. Networks in which rows depend on each other, and
            discrete agents, then hold the gradient of every task (learner.agents.task_gradients).
    """
    number = 8 if precision == "float64" else 4
    # On a CPU factors may be rounded to bfloat16 but stored in float32 (learner.scale.precision).
    half, factor = precision == "bf16", BFLOAT16 if precision == "bf16" and device != "cpu" else number
    sharded, divided = sharding == "shard", sharding == "tensor"
    parts = 1 if sharding == "replicate" else ranks // replicas
    critic, policy = critic_parameters(spec), policy_parameters(spec)
    rows = batch_size // (replicas if divided else ranks)
    networks = described(spec).networks(spec)
    heads = math.gcd(parts, spec.heads) if divided else 1  # parts into which the heads are divided
    # Critics that normalise over the batch see states and next states together.
    joint = 2 if normalises_batch(networks["critic"]) else 1
    layers = sum(
        joint * activations(network) // (heads if name == "critic" else 1)
        for name, network in networks.items()
        if name != "target"
    )
    # Logits, softmaxes and their gradients.
    outputs = 6 * joint * spec.heads * spec.outputs * spec.output_tasks * number
    outputs += encoder_activations(spec) * number
    row = (2 if spec.image else 8) * math.prod(spec.critic_shape) + 4 * (spec.action_size + 2) + 8
    block = largest_residual(networks["critic"])
    found = {
        "critic": critic * number // parts,
        "target": critic * number // parts,
        "critic_gradients": critic * number // parts,
        "critic_moments": 2 * critic * number // parts,
        "policy": 4 * policy * number,
        # Sharded: two blocks and the gradient of one are gathered at a time. Else, in bfloat16: copies of
        # critic and target.
        "gathered": (2 * block * factor + block * number) if sharded and parts > 1 else 0,
        "rounded": 0 if not half or (sharded and parts > 1) else 2 * critic * factor // parts,
        # On a CPU in bfloat16, rounded factors are kept in addition to the originals, which adds half.
        "activations": rows * (layers * factor * (3 if half and device == "cpu" else 2) // 2 + outputs),
        "batches": 2 * most_batches * row * batch_size,
        # Each by itself, then all in one tensor.
        "task_gradients": 2 * spec.num_tasks * critic * number if task_gradients and (joint > 1 or not policy) else 0,
    }
    if device == "cpu":
        if found["gathered"]:
            found["gathered"] = 3 * critic * number  # measured: what was gathered over gloo is not returned at once
        # Memory of libraries, and memory that was freed but not returned to the system (docs/performance.md).
        found["overhead"] = sum(found.values()) // 4 + OVERHEAD_BYTES
        # A checkpoint is written from a copy in the machine's memory.
        found["checkpoint"] = 4 * critic * number // parts
    return found


def in_words(needed: dict[str, int]) -> str:
    """Return a footprint as text, to be part of a sentence."""
    return ", ".join(f"{purpose.replace('_', ' ')} {count:,}" for purpose, count in needed.items() if count)
