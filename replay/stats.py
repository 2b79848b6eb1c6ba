"""What parts of replay say of themselves: frozen dataclasses, which processes send and metrics are made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LimiterStats:
    """Counts of a rate limiter.

    Attributes:
        inserts, samples: transitions stored and rows sampled, over all tasks.
        steps_after_warmup: environment steps of the slowest task that count towards the ratio.
        steps_ahead: by which the actors are ahead of the learner; 0 when they are behind.
        insert_wait_s, sample_wait_s: for which each side has been kept waiting.
        insert_refusals, sample_refusals: requests of each side that were refused.
    """

    inserts: int
    samples: int
    steps_after_warmup: int
    samples_per_insert_target: float
    samples_per_insert: float
    steps_ahead: float
    insert_wait_s: float
    sample_wait_s: float
    insert_refusals: int
    sample_refusals: int


@dataclass(frozen=True)
class Content:
    """What a shard began with.

    Attributes:
        origin: files, empty, or snapshot and its name.
        transitions: it holds.
        bad_segments, bad_transitions: dropped, since they held numbers that nothing can be learned from.
    """

    origin: str
    transitions: int
    bad_segments: int
    bad_transitions: int


@dataclass(frozen=True)
class ShardStats:
    """A shard as it is now. Lists have an item for each task.

    Attributes:
        token: differs for every process that is the shard.
        caught_up: whether it knows what processes before it had counted.
        fill: held transitions as a part of its capacity.
        bytes: of its storage, filled or not.
        clipped_by_task: numbers that did not fit in the type of stored observations.
        problem: what was wrong with what it could not take over; "" for nothing.
        node: of Ray; "" in a process without.
    """

    shard: int
    pid: int
    token: str
    caught_up: bool
    limiter: LimiterStats
    inserts_by_task: list[int]
    transitions_by_task: list[int]
    clipped_by_task: list[int]
    fill: float
    bytes: int
    node_available_bytes: int
    node_total_bytes: int
    repeated_pushes: int
    bad_segments: int
    bad_transitions: int
    origin: str
    problem: str
    node: str = ""

    @property
    def content(self) -> Content:
        return Content(self.origin, sum(self.transitions_by_task), self.bad_segments, self.bad_transitions)


@dataclass(frozen=True)
class WriterStats:
    """Counts of a writer since it began.

    Attributes:
        lost: pushes that were left with a shard that did not answer, to be offered again.
        push_s, wait_s: seconds that stored pushes were under way, and that the caller was kept waiting.
    """

    pushes: int = 0
    transitions: int = 0
    bytes: int = 0
    refusals: int = 0
    lost: int = 0
    push_s: float = 0.0
    wait_s: float = 0.0


@dataclass(frozen=True)
class SamplerStats:
    """Counts of a sampler since it began.

    Attributes:
        elsewhere: batches that one shard granted and another served.
        lost: requests whose shard was out of reach or had begun anew.
        wait_s: seconds that the caller was kept waiting.
    """

    requests: int = 0
    refusals: int = 0
    batches: int = 0
    elsewhere: int = 0
    lost: int = 0
    bytes: int = 0
    wait_s: float = 0.0
