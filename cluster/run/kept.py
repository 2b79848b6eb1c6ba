"""The state that a coordinator keeps in the registry, for a coordinator that takes over while all parts live."""

from __future__ import annotations

from dataclasses import dataclass

from dashboards.progress import ProgressState
from replay.stats import ShardStats


@dataclass(frozen=True)
class Kept:
    """The state of a coordinator.

    Attributes:
        life: number of learners that the run has had before this one.
        incarnation: the highest incarnation of its actors.
        counts: desired number of actors, by benchmark.
        evaluating: (environment steps, policy, number) of evaluations that are not finished.
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
