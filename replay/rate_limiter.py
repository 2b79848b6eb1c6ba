"""Controls the ratio between sampling and inserting, which sets the sample efficiency of the whole system.

The reference makes `updates_per_step` updates of `batch_size` rows per environment step of every task, that is

    samples per insert = updates_per_step * batch_size / num_tasks

The limiter counts inserts by task. Sampling follows the task with the fewest inserts, so no task gets fewer gradient
steps per environment step than another. Inserts of a task that is ahead must wait. The limiter refuses a call at once,
and the caller tries again later: no thread ever blocks here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from replay.stats import LimiterStats

MIN_WAIT_S, MAX_WAIT_S = 0.002, 0.1


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """The ratio and the bounds that a limiter enforces.

    Attributes:
        samples_per_step: rows to sample per environment step of every task: updates_per_step * batch_size.
        batch_size: the smallest number of rows that one sample takes.
        warmup: inserts of each task before the first sample.
        max_ahead: environment steps by which a task may be ahead of the samples. This is the tolerance: while both
            sides run, samples are within max_ahead + one push of the exact ratio, and never above it.
        budget: largest number of inserts of each task; None for no limit.
        offline: batches of demonstrations to sample before the first insert, beyond the ratio.
    """

    samples_per_step: float
    batch_size: int
    warmup: int
    max_ahead: int
    budget: int | None = None
    offline: int = 0

    def batches_due(self, steps: int) -> int:
        """Return the total of whole batches that `steps` environment steps of every task, warm-up included, allow."""
        return (
            self.offline + max(0, math.floor((steps - self.warmup) * self.samples_per_step + 1e-6)) // self.batch_size
        )

    @property
    def total_batches(self) -> int:
        """The number of batches that a full budget allows, which the learner has used at the end of the run."""
        if self.budget is None:
            raise ValueError("without a budget there is no total")
        return self.batches_due(self.budget)

    def __post_init__(self) -> None:
        if self.samples_per_step <= 0 or self.batch_size < 1 or self.warmup < 1 or self.max_ahead < 1:
            raise ValueError(f"samples_per_step, batch_size, warmup and max_ahead must be positive: {self}")
        if self.max_ahead * self.samples_per_step < self.batch_size:
            # Inserts would stop max_ahead steps after a sample, before there are enough steps for the next one.
            raise ValueError(
                f"max_ahead {self.max_ahead} can never allow a batch of {self.batch_size} at {self.samples_per_step:g} "
                f"samples per step: it must be at least {math.ceil(self.batch_size / self.samples_per_step)}"
            )
        if self.budget is not None and self.budget <= self.warmup:
            raise ValueError(f"budget {self.budget} must exceed warmup {self.warmup}, or nothing is ever sampled")


class RateLimiter:
    """Counts inserts by task and samples, and decides which calls may proceed. Not thread-safe: its shard has the lock.

    Args:
        inserts: (num_tasks,) int64, the array of counts, which may be mapped from a file; a new array if None.
    """

    def __init__(
        self,
        limit: RateLimit,
        num_tasks: int,
        clock: Callable[[], float] = time.monotonic,
        inserts: np.ndarray | None = None,
    ) -> None:
        self.limit = limit
        self.inserts = np.zeros(num_tasks, np.int64) if inserts is None else inserts
        self.samples = 0
        self.insert_side = Side(clock)
        self.sample_side = Side(clock)

    def room(self, task: int) -> int | None:
        """Return how many inserts the budget has left for a task; None without a budget. The result is 0, not negative,
        if the budget has been lowered."""
        return None if self.limit.budget is None else max(0, self.limit.budget - int(self.inserts[task]))

    @property
    def is_offline(self) -> bool:
        """Whether offline batches are left to sample."""
        return self.samples < self.limit.offline * self.limit.batch_size

    @property
    def online(self) -> int:
        """The samples that count for the ratio."""
        return max(0, self.samples - self.limit.offline * self.limit.batch_size)

    def ahead(self, tasks: Iterable[int] | None = None) -> float:
        """Return the environment steps by which the slowest of `tasks` (default all) is ahead of the samples taken."""
        inserts = self.inserts if tasks is None else self.inserts[list(tasks)]
        return int(inserts.min()) - self.limit.warmup - self.online / self.limit.samples_per_step

    def batches_allowed(self) -> int:
        """Return how many whole batches may be sampled now."""
        return max(0, self.limit.batches_due(int(self.inserts.min())) - self.samples // self.limit.batch_size)

    def may_insert(self, tasks: Iterable[int]) -> bool:
        """Whether a push for `tasks` may proceed: the slowest of them is at most max_ahead steps ahead of sampling.

        A push is accepted whole, so it may exceed the bound by its own length. Because the slowest task decides, a push
        that the sampler waits for is never refused, so the two sides cannot wait for each other. Until all offline
        batches are sampled, none may.
        """
        return not self.is_offline and self.ahead(tasks) <= self.limit.max_ahead

    def inserted(self, task: int, transitions: int) -> None:
        self.inserts[task] += transitions

    def sampled(self, rows: int) -> None:
        self.samples += rows

    def insert_wait(self, tasks: Iterable[int]) -> float:
        """Return the seconds until a refused push is likely to be accepted, from the recent rate of sampling."""
        excess = (self.ahead(tasks) - self.limit.max_ahead) * self.limit.samples_per_step
        return self.sample_side.time_for(excess)

    def sample_wait(self) -> float:
        """Return the seconds until a refused sample is likely to be allowed, from the recent rate of inserting."""
        missing = self.limit.batch_size / self.limit.samples_per_step - self.ahead()
        return self.insert_side.time_for(missing * len(self.inserts))

    def stats(self) -> LimiterStats:
        steps = int(self.inserts.min()) - self.limit.warmup
        tasks = len(self.inserts)
        return LimiterStats(
            inserts=int(self.inserts.sum()),
            samples=self.samples,
            offline_samples=self.samples - self.online,
            steps_after_warmup=max(0, steps),
            samples_per_insert_target=self.limit.samples_per_step / tasks,
            samples_per_insert=self.online / (steps * tasks) if steps > 0 else 0.0,
            steps_ahead=max(0.0, self.ahead()),
            insert_wait_s=self.insert_side.waited(),
            sample_wait_s=self.sample_side.waited(),
            insert_refusals=self.insert_side.refusals,
            sample_refusals=self.sample_side.refusals,
        )


class Side:
    """One side of the limiter, inserting or sampling: its recent rate, and how long it has waited."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.rate = 0.0  # rows per second, smoothed
        self.refusals = 0
        self.blocked_since: float | None = None
        self.blocked_s = 0.0
        self.last = clock()

    def allowed(self, rows: int) -> None:
        now = self.clock()
        elapsed = max(now - self.last, 1e-6)
        self.last = now
        weight = 1.0 - math.exp(-elapsed / 2.0)  # the average decays within about two seconds
        self.rate += weight * (rows / elapsed - self.rate)
        self.blocked_s = self.waited()
        self.blocked_since = None

    def refused(self) -> None:
        self.refusals += 1
        if self.blocked_since is None:
            self.blocked_since = self.clock()

    def waited(self) -> float:
        """Return the summed seconds from each first refusal to the next allowed call, the present wait included."""
        present = 0.0 if self.blocked_since is None else self.clock() - self.blocked_since
        return self.blocked_s + present

    def time_for(self, rows: float) -> float:
        """Return the seconds in which this side moves `rows`, within MIN_WAIT_S and MAX_WAIT_S."""
        return min(MAX_WAIT_S, max(MIN_WAIT_S, rows / self.rate if self.rate > 0 else MAX_WAIT_S))
