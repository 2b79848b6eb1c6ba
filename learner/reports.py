"""What a learner says of itself: frozen dataclasses, which processes send and metrics are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from replay.stats import SamplerStats


@dataclass(frozen=True)
class Measured:
    """A way to make updates, and the seconds that one takes."""

    precision: str
    threads: int
    seconds: float


@dataclass(frozen=True)
class Ready:
    """A learner that is made or restored.

    Attributes:
        measured: ways to make updates that were tried before the first.
        consumed: batches used, by the shard that granted them.
    """

    updates: int
    device: str
    precision: str
    threads: int
    measured: list[Measured] = field(default_factory=list)
    ranks: int = 1
    sharding: str = "replicate"
    critic_parameters: int = 0
    consumed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Seconds:
    """That the learner has spent on each since it began."""

    data_wait: float = 0.0
    update: float = 0.0
    publish: float = 0.0


@dataclass(frozen=True)
class LearnerReport:
    """Counters and the newest metrics.

    Attributes:
        metrics: losses and their like, by name; of another agent they may be others.
        reward_scale: what each task's rewards are divided by; inf before its first finished episode.
        threads: that updates are made with now.
        policies: published so far.
    """

    updates: int
    metrics: dict[str, float]
    reward_scale: list[float]
    seconds: Seconds
    threads: int
    policies: int
    sampler: SamplerStats
