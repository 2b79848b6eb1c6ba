"""The part of the plan that needs torch's modules; kept apart so that refusing bad input stays fast."""

from __future__ import annotations

from cluster.plan import Plan, learner_threads
from learner.brc import BRCSettings
from learner.learner import LearnerSpec
from learner.networks import NetworkSpec


def learner_spec(plan: Plan, device: str) -> LearnerSpec:
    config = plan.config.learner
    networks = NetworkSpec(
        plan.observation_size,
        plan.action_size,
        len(plan.tasks),
        config.width,
        config.depth,
        config.heads,
        config.policy_width,
        config.policy_depth,
        config.embedding_size,
        config.num_bins,
        config.embedding_norm,
    )
    settings = BRCSettings(
        config.discount,
        config.polyak,
        config.learning_rate,
        config.weight_decay,
        config.initial_temperature,
        config.target_entropy_per_action,
        config.value_limit,
    )
    return LearnerSpec(
        networks,
        settings,
        config.batch_size,
        config.batches_per_request,
        plan.config.replay.shards,
        plan.config.seed,
        config.dtype,
        plan.config.replay.observation_dtype,
        device,
        learner_threads(plan.config),
    )
