"""Make one metrics row from the reports of all parts, and find the side of the system that the other waits for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np

from actors.reports import ActorReport, FleetCounts
from dashboards.rows import Row, limiter_row, shard_row
from learner.reports import LearnerReport
from replay.stats import ShardStats, WriterStats

RECENT_EPISODES = 20
T = TypeVar("T")
QUANTILES = {"p10": 10, "p50": 50, "p90": 90}
RECENT_ROWS = 12  # a minute at the default interval; the time left is estimated from these rows


@dataclass(frozen=True)
class ProgressState:
    """Counts of a run that continue after a resume. Lists have an item for each task."""

    episodes: list[int]
    elapsed_s: float
    bad_episodes: list[int] = field(default_factory=list)  # empty if an early version did not count them


class Progress:
    """Follow counters over time. Rates and shares are over the interval since the previous row."""

    def __init__(
        self, tasks: Sequence[str], steps: int, samples_per_insert: float, saved: ProgressState | None = None
    ) -> None:
        self.tasks = list(tasks)
        self.steps = steps
        self.target = samples_per_insert
        self.recent: list[deque[tuple[float, bool]]] = [deque(maxlen=RECENT_EPISODES) for _ in tasks]
        self.episodes: list[int] = [0] * len(self.tasks)
        self.bad_episodes: list[int] = [0] * len(self.tasks)
        self.history: deque[tuple[float, int]] = deque(maxlen=RECENT_ROWS)  # (monotonic time, steps)
        now = time.monotonic()
        self.started = now
        self.last: dict[str, float] = {"at": now}
        if saved:
            self.load_state(saved)

    def state(self) -> ProgressState:
        """Return the counts that a resumed run continues from."""
        return ProgressState(list(self.episodes), self.elapsed_s(), list(self.bad_episodes))

    def elapsed_s(self) -> float:
        """Return the seconds that the run has taken, including the time before a resume."""
        return time.monotonic() - self.started

    def load_state(self, state: ProgressState) -> None:
        self.episodes = list(state.episodes)
        self.bad_episodes = list(state.bad_episodes or self.bad_episodes)
        self.started = time.monotonic() - state.elapsed_s

    def episodes_ended(self, reports: Iterable[ActorReport]) -> None:
        for report in reports:
            for episode in report.episodes:
                self.recent[episode.task].append((episode.undiscounted_return, episode.success))
                self.episodes[episode.task] += 1
            for bad in report.bad:
                self.bad_episodes[bad.task] += 1

    def row(
        self,
        actors: Sequence[ActorReport],
        fleet: dict[str, FleetCounts],
        learner: LearnerReport,
        shards: Sequence[ShardStats],
    ) -> Row:
        """Make one row for metrics.jsonl from the newest report of every part."""
        now = time.monotonic()
        inserts = np.sum([shard.inserts_by_task for shard in shards], axis=0)
        clipped = np.sum([shard.clipped_by_task for shard in shards], axis=0)
        counters = {
            "at": now,
            "inserts": float(inserts.sum()),
            "updates": float(learner.updates),
            "data_wait": learner.seconds.data_wait,
            "push_wait": sum(report.writer.wait_s for report in actors),
        }
        elapsed = max(now - self.last["at"], 1e-9)
        # A restarted part counts from zero again; the change in its first interval is then shown as 0.
        change = {key: max(0.0, value - self.last.get(key, value)) for key, value in counters.items()}
        self.last = counters
        env_steps = int(inserts.min())
        steps_per_s = change["inserts"] / elapsed / len(self.tasks)
        learner_waits = min(1.0, change["data_wait"] / elapsed)
        actors_wait = min(1.0, change["push_wait"] / elapsed / max(1, len(actors)))
        acting = [report for report in actors if report.policy_version >= 0]
        oldest = max(acting, key=lambda report: report.policy_age_s, default=None)
        served = sum(shard.limiter.samples - shard.limiter.offline_samples for shard in shards)
        after_warmup = sum(shard.limiter.steps_after_warmup for shard in shards) * len(self.tasks)
        return Row(
            time=time.time(),
            elapsed_s=now - self.started,
            env_steps=env_steps,
            env_steps_by_task=self._by_task(inserts.tolist()),
            updates=learner.updates,
            steps_per_s=steps_per_s,
            updates_per_s=change["updates"] / elapsed,
            samples_per_insert=served / after_warmup if after_warmup > 0 else 0.0,
            samples_per_insert_target=self.target,
            mean_return=self._by_task([mean([value for value, _ in recent]) for recent in self.recent]),
            return_quantiles=self._by_task([quantiles([value for value, _ in recent]) for recent in self.recent]),
            success=self._by_task([mean([success for _, success in recent]) for recent in self.recent]),
            episodes=self._by_task(self.episodes),
            bad_episodes=self._by_task(self.bad_episodes),
            clipped=self._by_task(clipped.tolist()),
            policy_age_s=0.0 if oldest is None else oldest.policy_age_s,
            policy_version=0 if oldest is None else oldest.policy_version,
            policy_age_updates=0 if oldest is None else max(0, learner.updates - oldest.policy_version),
            policies_published=learner.policies,
            publish_s_per_policy=learner.seconds.publish / max(1, learner.policies),
            replay_fill=mean([shard.fill for shard in shards]) or 0.0,
            replay_bytes=sum(shard.bytes for shard in shards),
            steps_ahead=max((shard.limiter.steps_ahead for shard in shards), default=0.0),
            learner_wait_share=learner_waits,
            actor_wait_share=actors_wait,
            learner_threads=learner.threads,
            learner_seconds=learner.seconds,
            actor_seconds=sums([report.seconds for report in actors]),
            limiter=limiter_row(shards),
            shards=[shard_row(shard) for shard in shards],
            writers=WriterStats(**sums([asdict(report.writer) for report in actors])),
            sampler=learner.sampler,
            bottleneck=bottleneck(learner_waits, actors_wait),
            actors=sum(part.alive for part in fleet.values()),
            actors_desired=sum(part.desired for part in fleet.values()),
            actors_by_benchmark=fleet,
            learner=dict(learner.metrics),
            reward_scale=self._by_task([scale if np.isfinite(scale) else None for scale in learner.reward_scale]),
            seconds_left=self._seconds_left(now, env_steps),
        )

    def _by_task(self, values: Sequence[T]) -> dict[str, T]:
        return dict(zip(self.tasks, values, strict=True))

    def _seconds_left(self, now: float, env_steps: int) -> float | None:
        """Estimate from the speed since the oldest kept row: a single interval may hold an evaluation or no push."""
        self.history.append((now, env_steps))
        then, done = self.history[0]
        return (self.steps - env_steps) * (now - then) / (env_steps - done) if env_steps > done else None


def bottleneck(learner_waits: float, actors_wait: float) -> str:
    """Return the side that the other waits for; 'balanced' if neither waits a tenth of its time; 'limiter' if both wait
    by turns, as when the limiter lets neither get ahead far enough."""
    most, least = max(learner_waits, actors_wait), min(learner_waits, actors_wait)
    if most < 0.1:
        return "balanced"
    if least > most / 2:
        return "limiter"
    return "actors" if learner_waits > actors_wait else "learner"


def sums(counters: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the sum of every counter over the parts."""
    return {name: sum(part[name] for part in counters) for name in (counters[0] if counters else ())}


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return the quantiles by name; {} for no values."""
    if not values:
        return {}
    return dict(zip(QUANTILES, np.percentile(values, list(QUANTILES.values())).tolist(), strict=True))


def mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def lowest_inserts(shards: Sequence[ShardStats]) -> int:
    """Return the environment steps of the slowest task, from the stats of all shards."""
    return int(np.sum([shard.inserts_by_task for shard in shards], axis=0).min())
