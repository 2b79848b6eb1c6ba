"""Reckons the time of an update on several ranks, by how they share the critic, before anything is measured.

The speeds are those of an H100 in a machine with NVLink, or of a few CPU cores whose ranks speak over TCP. Only the
order of the ways matters here. No GPU has been compared with the reckoning yet (docs/performance.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from learner.agents.catalogue import described
from learner.config import LearnerConfig
from learner.networks.description import (
    BatchNorm,
    Dense,
    Ensemble,
    Network,
    Placed,
    RMSNorm,
    Scaler,
    UnitNorm,
    placed,
)
from learner.networks.registry import architecture
from learner.networks.sizes import activations, operations
from learner.networks.spec import NetworkSpec
from learner.scale.memory import critic_parameters, normalises_batch
from learner.spec import Ranks, Sharding

WAYS: tuple[Sharding, ...] = ("replicate", "tensor", "shard")
ACTIVATION_BYTES = 26  # of an update for each number of `activations` in bfloat16, outside of products
GATHERS = 5  # times that an update gathers the weights of a sharded critic


@dataclass(frozen=True)
class Speeds:
    """What a rank can do in a second.

    Attributes:
        products: floating-point operations in products of matrices, by precision.
        memory: bytes that it reads or writes in its own memory.
        link: bytes that it sends to other ranks, while it receives as many.
        exchange: seconds of the smallest exchange between ranks.
        rest: seconds of an update that depend on no size.
        auto: what the precision `auto` most often is.
    """

    products: dict[str, float]
    memory: float
    link: float
    exchange: float
    rest: float
    auto: str


H100 = Speeds(
    {"float64": 45e12, "float32": 45e12, "tf32": 330e12, "bf16": 600e12}, 3.0e12, 300e9, 12e-6, 0.3e-3, "bf16"
)
CORES = Speeds({"float64": 5e10, "float32": 1e11, "tf32": 1e11, "bf16": 2e11}, 1e10, 1e9, 2e-4, 1e-3, "float32")


def update_flops(spec: NetworkSpec, config: LearnerConfig, rows: int = 0) -> tuple[int, int]:
    """Return the floating-point operations in the layers of an update of so many rows, by default those of a batch, in
    the mean over updates that move the policy and those that do not: (those of the critic, those of the policy).
    Gradient surgery and measures of conflict are not counted."""
    networks, rows = described(spec).networks(spec), rows or config.batch_size
    critic, policy = networks["critic"], networks.get("policy")
    # Critics that normalise over the batch see states and next states together.
    joint = 2 if normalises_batch(critic) else 1
    # Target: forward. Critic's loss: forward, and gradients of weights and inputs. Without task embeddings nothing
    # below the first layer learns from it.
    found = joint * (4 * operations(critic) - (0 if spec.learned_embeddings else first_layers(critic)))
    if policy is None:  # the online critic chooses the next action
        return rows * (found + operations(critic)), 0
    # Policy's loss: the critic's forward, and gradients of inputs alone.
    found += 2 * operations(critic) // config.policy_interval
    # Forward for the target and for the loss; gradients of weights, and of inputs except the first layer's.
    seen = 2 if architecture(spec.network).joint_policy else 1
    moving = seen * (3 * operations(policy) - first_layers(policy)) // config.policy_interval
    return rows * found, rows * (operations(policy) + moving)


def first_layers(network: Network) -> int:
    """Return the operations of one row in the dense layer, or layers, that take the network's inputs."""
    first = next((place for place in placed(network) if isinstance(place.layer, Dense)), None)
    return first.copies * 2 * first.before[0] * first.after[0] if first is not None else 0


def update_seconds(spec: NetworkSpec, config: LearnerConfig, ranks: Ranks, speeds: Speeds) -> float:
    """Return the reckoned seconds of an update."""
    precision = speeds.auto if config.precision == "auto" else config.precision
    half, number = precision == "bf16", 8 if precision == "float64" else 4
    factor = 2 if half else number
    held = 1 if ranks.sharding == "replicate" else ranks.count // ranks.replicas
    rows = config.batch_size // ranks.shares
    parameters = critic_parameters(spec)
    critic = described(spec).networks(spec)["critic"]
    heads = math.gcd(held, spec.heads) if ranks.sharding == "tensor" else 1
    flops, of_policy = update_flops(spec, config, rows)
    products = (flops / (held if ranks.sharding == "tensor" else 1) + of_policy) / speeds.products[precision]
    # AdamW and the target: four numbers are read and written, the gradient is written and read. In bfloat16 two rounded
    # copies are written too.
    state = parameters // held * (10 * number + (4 if half else 0))
    between = rows * activations(critic) // heads * ACTIVATION_BYTES * factor // 2
    own = products + (state + between) / speeds.memory + speeds.rest
    sent, exchanges = 0.0, 0
    if ranks.sharding == "tensor":
        sent, exchanges = _exchanged_by_tensor(spec, critic, rows, held // heads, factor)
    elif ranks.sharding == "shard":
        away = (held - 1) / held
        gathered = parameters * away * (GATHERS * factor + number)
        blocks = spec.heads * (spec.depth + 1)
        # Layers are gathered while others are computed, but copied out of what was gathered and into what is reduced.
        copied = 2 * parameters * (GATHERS * factor + number) / speeds.memory
        own = max(own, gathered / speeds.link) + copied + blocks * (GATHERS + 1) * speeds.exchange
    copies = ranks.count // held
    if copies > 1:  # gradients are averaged over the ranks that hold the same part
        sent += 2 * (copies - 1) / copies * parameters / held * number
        exchanges += 1
    return own + sent / speeds.link + exchanges * speeds.exchange


def _exchanged_by_tensor(spec: NetworkSpec, critic: Network, rows: int, columns: int, factor: int) -> tuple[float, int]:
    """Return (bytes that a rank sends in an update, number of exchanges) where ranks share a critic by `tensor`."""
    layers = dense_of_heads(critic)
    # The outputs of all heads, and the gradients of their inputs.
    sent, exchanges = rows * 4.0 * (3 * spec.heads * spec.outputs + 2 * 2 * math.prod(layers[0].before)), 5
    for place in layers:
        if columns > 1 and place.after[0] % columns == 0:
            # Three forward passes gather outputs, two backward passes add gradients of inputs.
            away = (columns - 1) / columns
            sent += rows * factor * away * (3 * place.after[0] + 2 * 2 * place.before[0])
            exchanges += 5
    return sent, exchanges


def dense_of_heads(critic: Network) -> list[Placed]:
    """Return the dense layers of the first head of a critic; none if it is no ensemble."""
    names = [f"{layer.name}.0." for layer in critic.layers if isinstance(layer, Ensemble)]
    return [place for place in placed(critic) if isinstance(place.layer, Dense) and place.path.startswith(tuple(names))]


def fits(spec: NetworkSpec, ranks: Ranks) -> bool:
    """Whether every rank gets a part of the critic in this way: ranks of one head must divide its width evenly. A
    network that actors run must be whole on every rank."""
    if ranks.sharding == "replicate":
        return ranks.replicas == 1
    critic = described(spec).networks(spec)["critic"]
    if described(spec).acts == "critic" or not dense_of_heads(critic) or not divisible(critic):
        return False
    return ranks.sharding == "shard" or spec.width % column_ranks(spec, ranks) == 0


def divisible(network: Network) -> bool:
    """Whether chains can compute all of a network, as is needed to divide it."""
    return not any(
        isinstance(place.layer, (BatchNorm, RMSNorm, Scaler, UnitNorm))
        or (isinstance(place.layer, Dense) and not place.layer.bias)
        for place in placed(network)
    )


def column_ranks(spec: NetworkSpec, ranks: Ranks) -> int:
    """Return how many ranks divide the columns of a head, where ranks share a critic by `tensor`."""
    held = ranks.count // ranks.replicas
    return held // math.gcd(held, spec.heads)


def reckoned(spec: NetworkSpec, config: LearnerConfig, ranks: Ranks, device: str) -> dict[Sharding, float]:
    """Return the reckoned seconds of an update for each way in which these ranks can share the critic, the fastest
    first."""
    speeds = H100 if device == "cuda" else CORES
    ways = [replace(ranks, sharding=way) for way in WAYS]
    found = {way.sharding: update_seconds(spec, config, way, speeds) for way in ways if fits(spec, way)}
    return dict(sorted(found.items(), key=lambda item: item[1]))
