"""The part of the plan that needs torch. It is a module of its own so that bad input is refused without torch."""

from __future__ import annotations

from dataclasses import replace

from cluster.plan.plan import Plan, learner_threads
from learner.config import Device
from learner.spec import LearnerSpec


def learner_spec(plan: Plan, device: Device, cores: int = 0) -> LearnerSpec:
    """Return the specification of a run's learner. `cores` is the number of cores of its machine; 0 means this machine.

    A serial run does not choose its threads by measured time, because it must be reproducible.
    """
    config = plan.config.learner
    return LearnerSpec(
        networks=plan.networks,
        config=replace(
            config,
            device=device,
            threads=learner_threads(plan.config, cores),
            schedule_updates=config.schedule_updates or plan.total_updates,
        ),
        num_shards=plan.config.replay.shards,
        seed=plan.config.seed,
        observation_dtype=plan.shards[0].storage.dtype,
        tuned=device == "cpu" and not config.threads and plan.config.execution == "distributed",
    )
