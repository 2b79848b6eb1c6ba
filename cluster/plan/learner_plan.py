"""The part of the plan that needs torch's modules; kept apart so that refusing bad input stays fast."""

from __future__ import annotations

from cluster.plan.plan import Plan, learner_threads
from learner.agents.interface import Settings
from learner.learner import LearnerSpec
from learner.scale.sharding import Ranks


def ranks(plan: Plan) -> Ranks:
    """How the learner's ranks share the work; the first of them."""
    config = plan.config.learner
    return Ranks(0, config.ranks, "shard" if plan.is_sharded else "replicate", config.replicas)


def learner_spec(plan: Plan, device: str, cores: int = 0) -> LearnerSpec:
    """What the learner of a run is made from. `cores` are those of its machine; 0 for this one's.

    Runs in lock step choose nothing by time: they are to be the same again.
    """
    config = plan.config.learner
    settings = Settings(
        config.discount,
        config.polyak,
        config.learning_rate,
        config.weight_decay,
        config.initial_temperature,
        config.target_entropy_per_action,
        config.value_limit,
        config.loss,
    )
    return LearnerSpec(
        plan.networks,
        settings,
        config.batch_size,
        config.batches_per_request,
        plan.config.replay.shards,
        plan.config.seed,
        config.precision,
        plan.shards[0].storage.dtype,
        device,
        learner_threads(plan.config, cores),
        config.compile,
        device == "cpu" and not config.threads and plan.config.execution == "distributed",
    )
