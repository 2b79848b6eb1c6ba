"""Measures what each option of the learner costs: its updates a second, alternately with those of plain BRC.

The ratio is updates/s with the option divided by updates/s without it. Both have the same sizes and the same width,
unless the case names another, so networks of other shapes have other numbers of parameters, which are printed.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import tyro

from benchmarks.learner import BATCHES, NUM_TASKS, calls_per_s, learner_spec, noise, update
from benchmarks.report import alternate, compare
from learner.learner import Learner
from learner.networks.spec import network_spec
from learner.scale.memory import critic_parameters
from learner.scale.reckoning import update_flops
from replay.store.rows import Batches

OPTIONS: dict[str, dict[str, Any]] = {
    "mlp": {"network": "mlp"},
    "simba": {"network": "simba"},
    "simbav2": {"network": "simbav2"},
    "xqc": {"network": "xqc", "depth": 4},
    "xqc, policy every third": {"network": "xqc", "depth": 4, "policy_interval": 3},
    "flash": {"network": "flash"},
    "flash, policy every second": {"network": "flash", "policy_interval": 2},
    "mse": {"loss": "mse"},
    "min": {"target": "min"},
    "one-hot": {"conditioning": "one-hot"},
    "heads": {"conditioning": "heads"},
    "none": {"conditioning": "none"},
    "pcgrad": {"surgery": "pcgrad"},
    "conflict in every update": {"conflict_interval": 1},
    "policy every second": {"policy_interval": 2},
    "policy first": {"order": "policy-first"},
    "normalised observations": {"normalize_observations": True},
    "clipped gradients": {"gradient_clip": 1.0},
    "schedule": {"schedule": "linear", "schedule_updates": 10**6},
}


def main(
    widths: tuple[int, ...] = (256, 512),
    cases: tuple[str, ...] = (),
    batch_size: int = 256,
    tasks: int = NUM_TASKS,
    seconds: float = 2.0,
    repeats: int = 5,
    threads: int = 1,
) -> int:
    """Measure the updates/s of each option against those of BRC without it, in float32 on a CPU. Exit code 2 for an
    unknown case.

    Args:
        widths: widths of the critic.
        cases: options to measure; all if none is named.
        batch_size: rows in an update.
        tasks: number of tasks.
        seconds: length of a repeat of either side.
        repeats: repeats of each side.
        threads: threads of torch.
    """
    unknown = [case for case in cases if case not in OPTIONS]
    if unknown:
        print(f"options: unknown {', '.join(unknown)}; there are {', '.join(OPTIONS)}", file=sys.stderr)
        return 2
    torch.set_num_threads(threads)
    for width in widths:
        base = learner_spec(width, batch_size, "float32", "cpu", threads)
        base = replace(base, networks=replace(base.networks, num_tasks=tasks))
        plain, batches = Learner(base), noise(base)
        for case in cases or OPTIONS:
            config = replace(base.config, **OPTIONS[case])
            sizes = {name: getattr(base.networks, name) for name in ("observation_size", "action_size", "num_tasks")}
            spec = replace(base, config=config, networks=network_spec(config, **sizes))
            other = Learner(spec)
            sides = alternate(partial(speed, other, batches, seconds), partial(speed, plain, batches, seconds), repeats)
            result = compare("options", f"{case} w{width}-b{batch_size}-tasks{tasks}", "updates/s", *sides)
            flops = sum(update_flops(spec.networks, config))
            result.print(
                threads=threads,
                critic_parameters=critic_parameters(spec.networks),
                gigaflop_per_update=flops / 1e9,
                gigaflop_of_plain=sum(update_flops(base.networks, base.config)) / 1e9,
            )
    return 0


def speed(learner: Learner, batches: Batches, seconds: float) -> float:
    """Return the updates a second."""
    return BATCHES * calls_per_s(partial(update, learner, batches), seconds)


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
