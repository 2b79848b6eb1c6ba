"""Tasks of TD-MPC2's 80 that dm_control's suite lacks, on the suite's bodies. dmc_extra.py makes their environments."""

from __future__ import annotations

from actors.benchmarks import dmc, metaworld
from actors.benchmarks.benchmark import Benchmark, Task
from actors.benchmarks.dmc import HOPPER, WALKER, Keys

EXTRA: dict[str, tuple[Keys, int]] = {
    "ball_in_cup-spin": ({"position": 4, "velocity": 4}, 2),
    **dict.fromkeys(
        ("cheetah-run-backwards", "cheetah-run-front", "cheetah-run-back", "cheetah-jump"),
        ({"position": 8, "velocity": 9}, 6),
    ),
    "hopper-hop-backwards": (HOPPER, 4),
    "pendulum-spin": ({"orientation": 2, "velocity": 1}, 1),
    **dict.fromkeys(("reacher-three_easy", "reacher-three_hard"), ({"position": 3, "to_target": 2, "velocity": 3}, 3)),
    **dict.fromkeys(("walker-walk-backwards", "walker-run-backwards"), (WALKER, 6)),
}
TASKS = {
    f"dmc-extra/{name}": Task(
        name=f"dmc-extra/{name}",
        observation_keys=tuple(keys.items()),
        action_size=actions,
        episode_limit=1000,
        library_id=name,
    )
    for name, (keys, actions) in EXTRA.items()
}
BENCHMARK = Benchmark(
    name="dmc-extra",
    backends=("dm_control",),
    tasks=TASKS,
    suites={"metaworld-dmc-80": (*metaworld.TASKS, *(f"dmc/{name}" for name in dmc.OF_80.split()), *TASKS)},
    score=dmc.score,
)
