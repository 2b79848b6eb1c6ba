"""What a learner is made from: its networks and settings, its ranks, and its training loop.

Nothing here loads torch, so that a coordinator can describe a learner without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from learner.config import LearnerConfig
from learner.networks.spec import NetworkSpec

Sharding = Literal["replicate", "shard", "tensor"]
MEAN, RANDOM = -1, -2


@dataclass(frozen=True, kw_only=True)
class LearnerSpec:
    """Everything a learner is made from.

    Attributes:
        config: the run's learner section, with a device and a number of CPU threads. `batches_per_request` is the
            largest number of batches in one call of `train`.
        num_shards: number of replay shards.
        observation_dtype: dtype of the observations in batches.
        tuned: whether to use the fastest number of threads, up to the configured number (learner.scale.tuning).
    """

    networks: NetworkSpec
    config: LearnerConfig
    num_shards: int = 1
    seed: int
    observation_dtype: str = "float32"
    tuned: bool = False

    def changed(self, **options: Any) -> LearnerSpec:
        """Return a copy with these options of its configuration changed."""
        return replace(self, config=replace(self.config, **options))


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, the number of ranks, and how they share the critic.

    Attributes:
        replicas: copies of a critic in parts, a divisor of `count`. With one copy for each node, only gradients cross
            between nodes. The ranks of a copy follow each other.
    """

    rank: int = 0
    count: int = 1
    sharding: Sharding = "replicate"
    replicas: int = 1

    @property
    def shares(self) -> int:
        """The number of parts into which the rows of a batch are divided."""
        return self.replicas if self.sharding == "tensor" else self.count

    def rows(self, batch_size: int) -> slice:
        """Return this rank's rows of a batch. `shares` must divide `batch_size`."""
        size, share = batch_size // self.shares, self.rank * self.shares // self.count
        return slice(share * size, (share + 1) * size)


ALONE = Ranks()


@dataclass(frozen=True)
class Origin:
    """The trained agent from which a new agent begins.

    Attributes:
        url: folder or URL of the learner's part of a checkpoint.
        networks: networks of the agent in the checkpoint.
        embeddings: for every task of the new agent, its first embedding: the index of a task of the trained agent,
            MEAN of all of them, or RANDOM for a new one.
        scales: for every task of the new agent, the index of the task whose reward scale it keeps, or RANDOM for none.
    """

    url: str
    networks: NetworkSpec
    embeddings: tuple[int, ...]
    scales: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LoopSpec:
    """Settings of the training loop: its goal, and how often it publishes and measures.

    Attributes:
        ranks: processes that make updates together, and how they share the work (learner/scale/sharding.py).
        reckoned: of several ranks, the seconds of an update for each way to share it (learner/scale/reckoning.py).
        deadline_s: seconds that ranks wait for each other before they fail.
        checkpoint: folder or URL of the checkpoint to resume from; "" for none.
        origin: trained agent to begin from, if there is no checkpoint.
        evidence: folder for batches that made a loss infinite or NaN, and for a trace of `profile` updates.
    """

    total_updates: int
    publish_interval: int  # updates
    diagnostics_interval: int  # updates
    requests_in_flight: int
    ranks: Ranks = ALONE
    reckoned: dict[str, float] = field(default_factory=dict)
    deadline_s: float = 120.0
    checkpoint: str = ""
    origin: Origin | None = None
    evidence: str = ""
    profile: int = 0
    life: int = 0  # number of earlier learners in the run
    probabilities: tuple[float, ...] = ()  # probability of drawing each task; () if equal
