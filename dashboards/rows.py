"""Rows of metrics.jsonl and eval.jsonl: measurements every few seconds, and results of evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.reports import FleetCounts
from dashboards.codec import Float, called
from learner.reports import Seconds
from replay.stats import SamplerStats, ShardStats, WriterStats

ByTask = dict[str, float | None]  # None if unknown


@dataclass(frozen=True)
class ShardRow:
    """State of a replay shard, as in replay.stats."""

    shard: int
    fill: Float
    bytes: int
    node_available_bytes: int
    node_total_bytes: int
    inserts: int
    samples: int
    steps_ahead: Float
    insert_wait_s: Float
    sample_wait_s: Float
    insert_refusals: int
    sample_refusals: int
    repeated_pushes: int


def shard_row(stats: ShardStats) -> ShardRow:
    limiter = stats.limiter
    return ShardRow(
        shard=stats.shard,
        fill=stats.fill,
        bytes=stats.bytes,
        node_available_bytes=stats.node_available_bytes,
        node_total_bytes=stats.node_total_bytes,
        inserts=limiter.inserts,
        samples=limiter.samples,
        steps_ahead=limiter.steps_ahead,
        insert_wait_s=limiter.insert_wait_s,
        sample_wait_s=limiter.sample_wait_s,
        insert_refusals=limiter.insert_refusals,
        sample_refusals=limiter.sample_refusals,
        repeated_pushes=stats.repeated_pushes,
    )


@dataclass(frozen=True)
class LimiterRow:
    """Sums of limiter counters over all shards."""

    insert_wait_s: Float
    sample_wait_s: Float
    insert_refusals: int
    sample_refusals: int
    repeated_pushes: int


def limiter_row(shards: Sequence[ShardStats]) -> LimiterRow:
    limiters = [shard.limiter for shard in shards]
    return LimiterRow(
        insert_wait_s=sum(limiter.insert_wait_s for limiter in limiters),
        sample_wait_s=sum(limiter.sample_wait_s for limiter in limiters),
        insert_refusals=sum(limiter.insert_refusals for limiter in limiters),
        sample_refusals=sum(limiter.sample_refusals for limiter in limiters),
        repeated_pushes=sum(shard.repeated_pushes for shard in shards),
    )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of metrics.jsonl. Dictionaries are by task, unless their name says otherwise.

    Attributes:
        time: seconds since 1970, by a clock that may go back.
        elapsed_s: seconds that the run has taken, over all its lives.
        session: number of the process that conducts the run; 0 in rows of early versions.
        env_steps: environment steps of the slowest task.
        mean_return: mean return of recent training episodes; return_quantiles: by task and quantile.
        episodes, bad_episodes: episodes that ended, and that were dropped, since the run began.
        clipped: how many numbers in observations did not fit in replay's type.
        policy_age_s, policy_age_updates, policy_version: values of the oldest policy that an actor acts with.
        learner_wait_share, actor_wait_share: share of its time that each side waits for the other.
        learner: newest metrics of the agent, by name.
        reward_scale: divisor of rewards.
        seconds_left: seconds until the budget is met, at the recent speed.
    """

    time: Float
    elapsed_s: Float
    env_steps: int
    env_steps_by_task: dict[str, int]
    updates: int
    steps_per_s: Float
    updates_per_s: Float
    samples_per_insert: Float
    samples_per_insert_target: Float
    mean_return: ByTask = field(metadata=called("return"))
    return_quantiles: dict[str, dict[str, Float]]
    success: ByTask
    episodes: dict[str, int]
    bad_episodes: dict[str, int] = field(default_factory=dict)
    clipped: dict[str, int] = field(default_factory=dict)
    policy_age_s: Float
    policy_version: int
    policy_age_updates: int
    policies_published: int
    publish_s_per_policy: Float
    replay_fill: Float
    replay_bytes: int
    steps_ahead: Float
    learner_wait_share: Float
    actor_wait_share: Float
    learner_threads: int = 0
    learner_seconds: Seconds
    actor_seconds: dict[str, Float]
    limiter: LimiterRow
    shards: list[ShardRow]
    writers: WriterStats
    sampler: SamplerStats
    bottleneck: str
    actors: int
    actors_desired: int
    actors_by_benchmark: dict[str, FleetCounts]
    learner: dict[str, float | None]
    reward_scale: ByTask
    seconds_left: float | None
    session: int = 0


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One row of eval.jsonl. Dictionaries are by task.

    Means and scores are over the episodes with valid numbers; None if a task has no such episode.

    Attributes:
        policy: random or deterministic.
        env_steps: steps at which it was asked for; updates: updates that its policy has learned from.
        mean_return, success, score: means over episodes; returns, scores, lengths: values of each episode.
        score_mean, score_iqm: mean and interquartile mean over tasks.
        bad_episodes: number of episodes without valid numbers, for tasks that have any.
    """

    time: Float
    elapsed_s: Float | None = None
    env_steps: int
    updates: int
    policy: str
    mean_return: ByTask = field(metadata=called("return"))
    success: ByTask
    score: ByTask
    score_mean: float | None
    score_iqm: float | None
    returns: dict[str, list[float | None]]
    scores: dict[str, list[Float]]
    lengths: dict[str, list[int]]
    bad_episodes: dict[str, int] = field(default_factory=dict)
    session: int = 0

    @property
    def is_random(self) -> bool:
        return self.policy == "random"
