"""05: a benchmark of your own: `python -m examples.own_benchmark`.

Its file ends with a BENCHMARK. This program registers it in its own process. An entry point of the group brc.benchmarks
registers it for all: then `brc suites` shows it, and `brc train quickstart --tasks goals-2` trains on it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from actors import Benchmark, Task
from actors.benchmarks.catalogue import register
from examples.own_environment import Follow
from examples.short import config, trained

TASKS = {
    f"goals/{name}": Task(
        name=f"goals/{name}",
        observation_keys=(("", Follow.observation_space.shape[0]),),
        action_size=Follow.action_space.shape[0],
        episode_limit=limit,
        library_id="examples.own_environment:Follow-v0",
    )
    for name, limit in (("short", 50), ("long", 100))
}


def score(task: Task, episode_return: float, success: float) -> float:
    """Return 1 if every step was at the goal, 0 for a mean distance of 1 from it."""
    return 1.0 + episode_return / task.episode_limit


BENCHMARK = Benchmark(
    name="goals",
    backends=("gymnasium",),
    tasks=TASKS,
    suites={"goals-2": tuple(TASKS)},
    score=score,
)


def main(folder: Path) -> dict[str, float | None]:
    """Return the mean scores of the random policy and after training."""
    register(BENCHMARK)
    random, learned = trained(config(folder, ("goals-2",)))
    return {"random": random.score_mean, "learned": learned.score_mean}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(main(Path(temporary)))
