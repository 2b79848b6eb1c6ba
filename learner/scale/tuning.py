"""The precision and the threads with which a CPU makes a run's updates fastest, found by making some before it begins.

They are updates of learners of the run's own sizes, which are thrown away, and torch's random state is left as it was:
nothing of the run depends on how many there were. Runs in lock step do without, as does a GPU: `learner.settled` is for
them.
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

from learner.learner import Learner, LearnerSpec, Trained, settled
from learner.scale.crew import Crew, allocate
from learner.scale.memory import critic_parameters
from learner.scale.pace import Pace, steps
from learner.scale.precision import Precision, multiplies_bfloat16
from learner.scale.sharding import Ranks
from replay.store.rows import Batches

# Above either, to measure would take longer than it is worth: layers so wide are faster in bfloat16 wherever there are
# instructions for it, and threads are found while the run goes on (learner.scale.pace).
MOST_PARAMETERS = 5_000_000
MOST_FLOP = 5e10  # of an update
SLICE_S = 0.05  # of updates made one way before the next has its turn
BUDGET_S = 2.0
ROUNDS = 7
HOPELESS = 1.5  # times the best: such a way gets no further turn


@dataclass(frozen=True)
class Way:
    """How updates are made."""

    precision: Precision
    threads: int


def choose(spec: LearnerSpec, ranks: Ranks) -> tuple[LearnerSpec, dict[Way, float]]:
    """The spec with the fastest way in it, and the seconds of an update of every way that was measured.

    All ranks must call it, with equal specs, and get the same: ranks in lock step are as fast as the slowest.
    """
    measured = measure(spec, ranks) if is_measured(spec) else {}
    costs = agreed(measured or {Way(settled(spec).config.precision, spec.config.threads): 0.0}, ranks)
    best = min(costs, key=lambda way: costs[way])
    return spec.changed(precision=best.precision, threads=best.threads), costs if measured else {}


def ways(spec: LearnerSpec) -> list[Way]:
    """The ways that the spec leaves open and this machine has instructions for."""
    precisions: list[Precision] = [spec.config.precision]
    if spec.config.precision == "auto":
        precisions = ["float32", "bf16"] if multiplies_bfloat16(spec.config.device) else ["float32"]
    threads = steps(spec.config.threads) if spec.tuned else [spec.config.threads]
    return [Way(precision, count) for precision in precisions for count in threads]


def is_measured(spec: LearnerSpec) -> bool:
    """Whether there is something to choose, and it takes a few seconds at most."""
    if spec.config.device != "cpu" or spec.networks.image or len(ways(spec)) == 1:
        return False
    parameters = critic_parameters(spec.networks)
    # Six passes through the critic (brc.update), of two operations for each parameter and row.
    return parameters <= MOST_PARAMETERS and 12 * parameters * spec.config.batch_size <= MOST_FLOP


def measure(spec: LearnerSpec, ranks: Ranks) -> dict[Way, float]:
    """Seconds of an update, every way, with a rank's rows of a batch."""
    # Compiled, they would take half a minute more, and are no faster (docs/performance.md).
    one = spec.changed(batch_size=spec.config.batch_size // ranks.count, batches_per_request=1, compile=False)
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
    """Seconds of an update each way, the median of its turns. `updates` makes some, and says how long that took and how
    many there were.

    In each round every way has its turn, so that what else the machine does meets all alike.
    """
    spent = sum(updates(way)[0] for way in choices)  # the first time kernels are made and memory is taken
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
    """A batch of normal numbers. Actions are 0, which is one where actions are discrete too."""
    batches, rng = allocate(spec, spec.config.batch_size), np.random.default_rng(0)
    for array in (batches.observations, batches.rewards, batches.next_observations):
        array[...] = rng.standard_normal(array.shape)
    batches.actions[...], batches.masks[...] = 0.0, 1.0
    batches.task_ids[...] = np.arange(spec.config.batch_size) % spec.networks.num_tasks
    batches.return_minimum[...], batches.return_maximum[...] = -10.0, 10.0
    return batches


def agreed(costs: dict[Way, float], ranks: Ranks) -> dict[Way, float]:
    """What the ways that all ranks have cost the one that is slowest at each; the first rank's where none is common."""
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
    """Crew.train on as many threads as `pace` wants, which is told how long that took."""
    crew.use_threads(pace.threads)
    started = time.perf_counter()
    trained = crew.train(batches, shard, diagnostics, between)
    if not diagnostics:  # these take longer
        pace.took(time.perf_counter() - started, batches.num_batches)
    return trained
