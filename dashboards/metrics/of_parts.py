"""Metrics of the parts of a run: actors, replay and learner."""

from __future__ import annotations

from dataclasses import asdict

from dashboards.metrics.samples import (
    TASK,
    by_benchmark,
    by_shard,
    by_side,
    chosen,
    counter,
    gauge,
    keyed,
    of_row,
    row_by_task,
)

PARTS = (
    # Actors
    gauge(
        "actors",
        "short",
        ("benchmark", "state"),
        "Actor processes that are desired, alive, pending.",
        by_benchmark(
            desired=lambda fleet: fleet.desired, alive=lambda fleet: fleet.alive, pending=lambda fleet: fleet.pending
        ),
    ),
    counter(
        "actor_restarts",
        "short",
        ("benchmark",),
        "Actors that were replaced.",
        by_benchmark(restarts=lambda fleet: fleet.restarts),
    ),
    counter(
        "actor_seconds",
        "s",
        ("activity",),
        "Time of all actors: act, step, record, push.",
        keyed(lambda row: row.actor_seconds),
    ),
    counter("pushes", "short", (), "Segments that replay has taken.", of_row(lambda row: row.writers.pushes)),
    counter("pushed_bytes", "bytes", (), "Bytes of these.", of_row(lambda row: row.writers.bytes)),
    counter(
        "push_seconds",
        "s",
        (),
        "Time from a segment's first offer until it was taken, summed.",
        of_row(lambda row: row.writers.push_s),
    ),
    counter(
        "push_wait_seconds",
        "s",
        (),
        "Time that actors have waited for a push before the next step.",
        of_row(lambda row: row.writers.wait_s),
    ),
    counter("push_refusals", "short", (), "Pushes that a shard has put off.", of_row(lambda row: row.writers.refusals)),
    counter(
        "push_losses",
        "short",
        (),
        "Pushes that a shard did not answer, and were offered again.",
        of_row(lambda row: row.writers.lost),
    ),
    gauge(
        "policy_age_seconds",
        "s",
        (),
        "Age that the oldest policy had when an actor last acted with it.",
        of_row(lambda row: row.policy_age_s),
    ),
    gauge(
        "policy_version", "short", (), "Updates that the oldest policy holds.", of_row(lambda row: row.policy_version)
    ),
    gauge(
        "policy_age_updates", "short", (), "Updates made since that policy.", of_row(lambda row: row.policy_age_updates)
    ),
    # Replay
    gauge(
        "replay_fill_ratio",
        "percentunit",
        ("shard",),
        "Share of its capacity that a shard holds.",
        by_shard(lambda shard: shard.fill),
    ),
    gauge(
        "replay_bytes",
        "bytes",
        ("shard",),
        "Memory that a shard takes, full or not.",
        by_shard(lambda shard: shard.bytes),
    ),
    gauge(
        "replay_node_available_bytes",
        "bytes",
        ("shard",),
        "Memory that is left on a shard's node.",
        by_shard(lambda shard: shard.node_available_bytes),
    ),
    gauge(
        "replay_node_total_bytes",
        "bytes",
        ("shard",),
        "Memory of a shard's node.",
        by_shard(lambda shard: shard.node_total_bytes),
    ),
    counter("replay_inserts", "short", ("shard",), "Transitions inserted.", by_shard(lambda shard: shard.inserts)),
    counter("replay_samples", "short", ("shard",), "Rows sampled.", by_shard(lambda shard: shard.samples)),
    counter(
        "replay_repeated_pushes",
        "short",
        ("shard",),
        "Pushes offered again after they were taken, and ignored.",
        by_shard(lambda shard: shard.repeated_pushes),
    ),
    gauge(
        "replay_steps_ahead",
        "short",
        ("shard",),
        "Environment steps by which acting is ahead of learning.",
        by_shard(lambda shard: shard.steps_ahead),
    ),
    counter(
        "limiter_wait_seconds",
        "s",
        ("shard", "side"),
        "Time that the limiter has held a side back.",
        by_side(lambda shard: shard.insert_wait_s, lambda shard: shard.sample_wait_s),
    ),
    counter(
        "limiter_refusals",
        "short",
        ("shard", "side"),
        "Requests that the limiter has put off.",
        by_side(lambda shard: shard.insert_refusals, lambda shard: shard.sample_refusals),
    ),
    gauge(
        "samples_per_insert",
        "short",
        (),
        "Rows sampled for each one inserted since warm-up.",
        of_row(lambda row: row.samples_per_insert),
    ),
    gauge(
        "samples_per_insert_target",
        "short",
        (),
        "What the limiter holds it at.",
        of_row(lambda row: row.samples_per_insert_target),
    ),
    # Learner
    counter("updates", "short", (), "Updates made.", of_row(lambda row: row.updates)),
    counter("policies", "short", (), "Policies published.", of_row(lambda row: row.policies_published)),
    counter(
        "learner_seconds",
        "s",
        ("activity",),
        "The learner's time: data_wait, update, publish.",
        keyed(lambda row: asdict(row.learner_seconds)),
    ),
    gauge(
        "learner_threads", "short", (), "CPU threads that make updates now.", of_row(lambda row: row.learner_threads)
    ),
    counter(
        "sample_requests", "short", (), "Requests of the learner to replay.", of_row(lambda row: row.sampler.requests)
    ),
    counter("sampled_bytes", "bytes", (), "Bytes that they have brought.", of_row(lambda row: row.sampler.bytes)),
    gauge(
        "loss",
        "short",
        ("network",),
        "Loss of the newest update.",
        chosen(lambda row: row.learner, {"critic": "critic_loss", "policy": "policy_loss"}),
    ),
    gauge(
        "gradient_norm",
        "short",
        ("network",),
        "L2 norm of a network's gradient.",
        chosen(lambda row: row.learner, {"critic": "critic_gradient_norm", "policy": "policy_gradient_norm"}),
    ),
    gauge(
        "parameter_norm",
        "short",
        ("network",),
        "L2 norm of a network's parameters.",
        chosen(lambda row: row.learner, {"critic": "critic_parameter_norm", "policy": "policy_parameter_norm"}),
    ),
    gauge(
        "entropy",
        "short",
        (),
        "Entropy of the policy in the newest batch, in nats.",
        of_row(lambda row: row.learner.get("entropy")),
    ),
    gauge("temperature", "short", (), "Entropy temperature.", of_row(lambda row: row.learner.get("temperature"))),
    gauge(
        "value_mean",
        "short",
        ("of",),
        "Mean value of the newest batch: of the policy's actions, and of the target.",
        chosen(lambda row: row.learner, {"policy": "q_mean", "target": "target_mean"}),
    ),
    gauge("reward_scale", "short", TASK, "What rewards are divided by.", row_by_task(lambda row: row.reward_scale)),
)
