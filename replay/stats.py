"""Statistics of the parts of replay: frozen dataclasses that processes send and that metrics are made from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LimiterStats:
    """Counts of a rate limiter.

    Attributes:
        inserts, samples: transitions stored and rows sampled, over all tasks.
        offline_samples: the samples before the first insert, which do not count for the ratio.
        steps_after_warmup: environment steps of the slowest task that count towards the ratio.
        steps_ahead: environment steps by which the actors are ahead of the learner; 0 when they are behind.
        insert_wait_s, sample_wait_s: seconds that each side has waited.
        insert_refusals, sample_refusals: requests of each side that were refused.
    """

    inserts: int
    samples: int
    offline_samples: int
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
    """The content with which a shard began.

    Attributes:
        origin: "files", "empty", or "snapshot" and its name.
        transitions: number of transitions that it holds.
        bad_segments, bad_transitions: numbers of those dropped, since they held NaN, infinite or too large numbers.
    """

    origin: str
    transitions: int
    bad_segments: int
    bad_transitions: int


@dataclass(frozen=True)
class ShardStats:
    """The present state of a shard. Lists have one item for each task.

    Attributes:
        token: name of the shard's process; every new process of the shard has another.
        caught_up: whether it knows the counts of the shard's earlier processes.
        fill: held transitions as a fraction of its capacity.
        bytes: size of its storage, filled or not.
        clipped_by_task: how many numbers were clipped to the range of the type of stored observations.
        problem: what was wrong with files or snapshots that it could not load; "" for nothing.
        node: id of its Ray node; "" in a process without Ray.
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
        lost: pushes set aside because their shard did not answer; they are sent to it again.
        push_s, wait_s: seconds that stored pushes were in flight, and that the caller waited.
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
        elsewhere: batches that one shard granted and another shard was asked to serve.
        lost: requests whose shard was unreachable or had restarted.
        wait_s: seconds that the caller waited.
    """

    requests: int = 0
    refusals: int = 0
    batches: int = 0
    elsewhere: int = 0
    lost: int = 0
    bytes: int = 0
    wait_s: float = 0.0
