"""What a coordinator keeps in the registry for one that takes over from it, while all parts live."""

from __future__ import annotations

from dataclasses import dataclass

from dashboards.progress import ProgressState
from replay.stats import ShardStats


@dataclass(frozen=True)
class Kept:
    """The state of a coordinator.

    Attributes:
        life: learners that the run has had before this one.
        incarnation: the highest of its actors.
        counts: actors that are wanted, by benchmark.
        evaluating: (environment steps, policy, number) of evaluations that are not made yet.
    """

    env_steps: int
    updates: int
    evaluations_begun: int
    progress: ProgressState
    shards: list[ShardStats]
    life: int
    incarnation: int
    counts: dict[str, int]
    evaluating: list[tuple[int, str, int]]
