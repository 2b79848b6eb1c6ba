"""The part of the plan that needs torch's modules; kept apart so that refusing bad input stays fast."""

from __future__ import annotations

from dataclasses import replace

from cluster.plan.plan import Plan, learner_threads
from learner.config import Device
from learner.learner import LearnerSpec
from learner.scale.sharding import Ranks


def ranks(plan: Plan) -> Ranks:
    """How the learner's ranks share the work; the first of them."""
    config = plan.config.learner
    return Ranks(0, config.ranks, "shard" if plan.is_sharded else "replicate", config.replicas)


def learner_spec(plan: Plan, device: Device, cores: int = 0) -> LearnerSpec:
    """What the learner of a run is made from. `cores` are those of its machine; 0 for this one's.

    Runs in lock step choose nothing by time: they are to be the same again.
    """
    config = plan.config.learner
    return LearnerSpec(
        networks=plan.networks,
        config=replace(config, device=device, threads=learner_threads(plan.config, cores)),
        num_shards=plan.config.replay.shards,
        seed=plan.config.seed,
        observation_dtype=plan.shards[0].storage.dtype,
        tuned=device == "cpu" and not config.threads and plan.config.execution == "distributed",
    )
