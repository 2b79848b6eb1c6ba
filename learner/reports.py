"""Reports of a learner: frozen dataclasses that processes send and that metrics are made from."""

from __future__ import annotations

from dataclasses import dataclass, field

from replay.stats import SamplerStats


@dataclass(frozen=True)
class Measured:
    """A precision and a number of threads, and the seconds that an update takes with them."""

    precision: str
    threads: int
    seconds: float


@dataclass(frozen=True)
class Ready:
    """Description of a learner that has just been made or restored.

    Attributes:
        measured: precisions and numbers of threads that were measured before the first update.
        reckoned: of several ranks, the seconds of an update for each way to share the critic (learner.scale.reckoning).
        consumed: batches used, by the shard that granted them.
    """

    updates: int
    device: str
    precision: str
    threads: int
    measured: list[Measured] = field(default_factory=list)
    ranks: int = 1
    sharding: str = "replicate"
    reckoned: dict[str, float] = field(default_factory=dict)
    critic_parameters: int = 0
    update_flops: int = 0  # floating-point operations in the products of an update; 0 in records of early versions
    consumed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Seconds:
    """Seconds that the learner has spent on each activity since it began."""

    data_wait: float = 0.0
    update: float = 0.0
    publish: float = 0.0


@dataclass(frozen=True)
class LearnerReport:
    """Counters and the newest metrics.

    Attributes:
        metrics: losses and other metrics by name; the names depend on the agent.
        reward_scale: the divisor of each task's rewards; inf before its first finished episode.
        threads: number of threads of updates now.
        policies: number of policies published so far.
    """

    updates: int
    metrics: dict[str, float]
    reward_scale: list[float]
    seconds: Seconds
    threads: int
    policies: int
    sampler: SamplerStats
