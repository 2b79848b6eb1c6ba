"""Finds the precision and the number of threads that make a run's updates fastest on a CPU.

Before the run begins, temporary learners of the run's sizes make some updates. Then torch's random state is restored:
nothing in the run depends on how many updates were made. Runs in lock step and on GPUs are not measured;
`learner.settled` chooses their precision.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
import torch.distributed as dist

from learner.learner import Learner, settled
from learner.scale.crew import Crew, allocate
from learner.scale.memory import critic_parameters
from learner.scale.pace import Pace, steps
from learner.scale.precision import Precision, multiplies_bfloat16
from learner.spec import LearnerSpec, Ranks
from learner.trained import Trained
from replay.store.rows import Batches

# Above either limit nothing is measured, since it would take too long: such wide layers are faster in bfloat16 on any
# device that has instructions for it, and the number of threads is found during the run (learner.scale.pace).
MOST_PARAMETERS = 5_000_000
MOST_FLOP = 5e10  # of an update
SLICE_S = 0.05  # seconds of updates in one turn of a way
BUDGET_S = 2.0
ROUNDS = 7
HOPELESS = 1.5  # a way that takes more than this factor times the best gets no further turn


@dataclass(frozen=True)
class Way:
    """A way to make updates: a precision and a number of threads."""

    precision: Precision
    threads: int


def choose(spec: LearnerSpec, ranks: Ranks) -> tuple[LearnerSpec, dict[Way, float]]:
    """Return the spec with the fastest way, and the seconds of an update of every way that was measured.

    All ranks must call this with equal specs. All get the same result, since ranks in lock step are as fast as the
    slowest.
    """
    # Where ranks divide a critic, none of them would measure its own part.
    measured = measure(spec, ranks) if is_measured(spec) and ranks.sharding != "tensor" else {}
    costs = agreed(measured or {Way(settled(spec).config.precision, spec.config.threads): 0.0}, ranks)
    best = min(costs, key=lambda way: costs[way])
    return spec.changed(precision=best.precision, threads=best.threads), costs if measured else {}


def ways(spec: LearnerSpec) -> list[Way]:
    """Return the ways that the spec allows and this machine has instructions for."""
    precisions: list[Precision] = [spec.config.precision]
    if spec.config.precision == "auto":
        precisions = ["float32", "bf16"] if multiplies_bfloat16(spec.config.device) else ["float32"]
    threads = steps(spec.config.threads) if spec.tuned else [spec.config.threads]
    return [Way(precision, count) for precision in precisions for count in threads]


def is_measured(spec: LearnerSpec) -> bool:
    """Whether there are several ways, and measuring them takes a few seconds at most."""
    if spec.config.device != "cpu" or spec.networks.image or len(ways(spec)) == 1:
        return False
    parameters = critic_parameters(spec.networks)
    # An update is six passes through the critic (brc.update), each of two operations per parameter and row.
    return parameters <= MOST_PARAMETERS and 12 * parameters * spec.config.batch_size <= MOST_FLOP


def measure(spec: LearnerSpec, ranks: Ranks) -> dict[Way, float]:
    """Return the seconds of an update in every way, with one rank's rows of a batch."""
    one = spec.changed(batch_size=spec.config.batch_size // ranks.shares, batches_per_request=1)
    choices = ways(spec)
    with torch.random.fork_rng(devices=[]):
        learners = {
            precision: Learner(one.changed(precision=precision)) for precision in {way.precision for way in choices}
        }
        batches = sample(one)

        def updates(way: Way) -> tuple[float, int]:
            torch.set_num_threads(way.threads)
            started, made = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - started) < SLICE_S:
                learners[way.precision].train(batches).finish()
                made += 1
            return elapsed, made

        return in_turns(choices, updates)


def in_turns(choices: Sequence[Way], updates: Callable[[Way], tuple[float, int]]) -> dict[Way, float]:
    """Return the seconds of an update in each way, the median of its turns. `updates(way)` makes some updates and
    returns (seconds, number of updates).

    In each round every way has one turn, so that other load on the machine affects all ways equally.
    """
    spent = sum(updates(way)[0] for way in choices)  # warm-up, not counted: kernels are made and memory is allocated
    turns: dict[Way, list[float]] = {way: [] for way in choices}
    costs: dict[Way, float] = {}
    for _ in range(ROUNDS):
        least = min(costs.values(), default=math.inf)
        left = [way for way in choices if costs.get(way, 0.0) <= HOPELESS * least]
        if costs and (len(left) == 1 or spent > BUDGET_S):
            break
        for way in left:
            seconds, made = updates(way)
            turns[way].append(seconds / made)
            spent += seconds
        costs = {way: median(found) for way, found in turns.items()}
    return costs


def sample(spec: LearnerSpec) -> Batches:
    """Return a batch of normal random numbers. Actions are 0, which is also a valid discrete action."""
    batches, rng = allocate(spec, spec.config.batch_size), np.random.default_rng(0)
    for array in (batches.observations, batches.rewards, batches.next_observations):
        array[...] = rng.standard_normal(array.shape)
    batches.actions[...], batches.masks[...] = 0.0, 1.0
    batches.task_ids[...] = np.arange(spec.config.batch_size) % spec.networks.num_tasks
    batches.return_minimum[...], batches.return_maximum[...] = -10.0, 10.0
    return batches


def agreed(costs: dict[Way, float], ranks: Ranks) -> dict[Way, float]:
    """Return, for each way that all ranks have, the seconds of its slowest rank; if they have no way in common, the
    first rank's table."""
    if ranks.count == 1:
        return costs
    tables: list[dict[Way, float]] = [{}] * ranks.count
    dist.all_gather_object(tables, costs)
    common = [way for way in tables[0] if all(way in table for table in tables)]
    return {way: max(table[way] for table in tables) for way in common} or tables[0]


def train_at(
    pace: Pace,
    crew: Crew,
    batches: Batches,
    shard: int = 0,
    diagnostics: bool = False,
    between: Callable[[], None] = lambda: None,
) -> Trained:
    """Call `Crew.train` with the number of threads of `pace`, and report the duration to `pace`."""
    crew.use_threads(pace.threads)
    started = time.perf_counter()
    trained = crew.train(batches, shard, diagnostics, between)
    if not diagnostics:  # updates with diagnostics take longer
        pace.took(time.perf_counter() - started, batches.num_batches)
    return trained
