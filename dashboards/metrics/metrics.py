"""Every metric of a run, declared once: what the exporter serves and what dashboards and alerts may ask for.

A metric is made from the newest row of metrics.jsonl and from what a Tally has seen of events and evaluations. Labels
are bounded by the run's configuration: benchmarks, tasks and shards, never actors or processes. Every series has the
label `run` besides. Counters begin with 0 in each process of the coordinator, but those that last, and do not go back
when a part dies.
"""

from __future__ import annotations

from dashboards.metrics.samples import (
    bottleneck,
    by_benchmark,
    by_shard,
    by_side,
    by_task,
    chosen,
    counter,
    gauge,
    keyed,
    number,
    spread,
    tallied,
)

TASK = ("benchmark", "task")
LEARNER = ("row", "learner")
METRICS = (
    # The run
    gauge("run_steps", "short", (), "Environment steps of the slowest task.", number("row", "env_steps")),
    gauge("run_steps_budget", "short", (), "Environment steps of each task at which the run ends.", number("budget")),
    gauge("run_updates", "short", (), "Updates that the agent has learned from.", number("row", "updates")),
    gauge("run_updates_budget", "short", (), "Updates at which the run ends.", number("updates_budget")),
    gauge(
        "run_elapsed_seconds", "s", (), "Time that the run has taken, over all its lives.", number("row", "elapsed_s")
    ),
    gauge(
        "run_left_seconds", "s", (), "Time until the budget is met, at the recent speed.", number("row", "seconds_left")
    ),
    gauge(
        "report_timestamp_seconds",
        "dateTimeAsIso",
        (),
        "When the coordinator last heard all parts.",
        number("row", "time"),
    ),
    gauge(
        "bottleneck",
        "bool",
        ("side",),
        "1 for the side that the other waits for; limiter where both wait by turns.",
        bottleneck,
    ),
    gauge(
        "wait_ratio",
        "percentunit",
        ("side",),
        "Share of its time that a side waits for the other.",
        chosen(("row",), {"learner": "learner_wait_share", "actors": "actor_wait_share"}),
    ),
    # Learning
    counter(
        "environment_steps",
        "short",
        TASK,
        "Environment steps that replay has taken.",
        by_task("row", "env_steps_by_task"),
    ),
    counter("episodes", "short", TASK, "Training episodes that have ended.", by_task("row", "episodes")),
    counter(
        "bad_episodes",
        "short",
        TASK,
        "Training episodes that were dropped, as a reward or an observation was NaN, infinite or beyond 1e15.",
        by_task("row", "bad_episodes"),
    ),
    counter(
        "clipped_observations",
        "short",
        TASK,
        "Numbers in observations that were brought within float16's range, of shards that live.",
        by_task("row", "clipped"),
    ),
    gauge(
        "episode_return",
        "short",
        (*TASK, "statistic"),
        "Undiscounted return of recent training episodes: mean, p10, p50, p90.",
        spread,
    ),
    gauge(
        "episode_success",
        "percentunit",
        TASK,
        "Share of recent training episodes with success.",
        by_task("row", "success"),
    ),
    gauge(
        "evaluation_return",
        "short",
        TASK,
        "Mean return of the deterministic policy in the newest evaluation.",
        by_task("evaluation", "return"),
    ),
    gauge(
        "evaluation_success",
        "percentunit",
        TASK,
        "Share of episodes with success in the newest evaluation.",
        by_task("evaluation", "success"),
    ),
    gauge(
        "evaluation_score",
        "percentunit",
        TASK,
        "Normalised score in the newest evaluation.",
        by_task("evaluation", "score"),
    ),
    gauge(
        "evaluation_steps",
        "short",
        (),
        "Environment steps at the newest evaluation.",
        number("evaluation", "env_steps"),
    ),
    gauge(
        "suite_score",
        "percentunit",
        ("statistic",),
        "Normalised score over all tasks: mean, iqm.",
        chosen(("evaluation",), {"mean": "score_mean", "iqm": "score_iqm"}),
    ),
    gauge("random_return", "short", TASK, "Mean return of the random policy.", by_task("random", "return")),
    gauge(
        "published",
        "short",
        TASK,
        "The paper's curve at the steps of the newest evaluation: return, for MetaWorld success.",
        by_task("published"),
    ),
    # Actors
    gauge(
        "actors",
        "short",
        ("benchmark", "state"),
        "Actor processes that are desired, alive, pending.",
        by_benchmark("desired", "alive", "pending"),
    ),
    counter("actor_restarts", "short", ("benchmark",), "Actors that were replaced.", by_benchmark("restarts")),
    counter(
        "actor_seconds",
        "s",
        ("activity",),
        "Time of all actors: act, step, record, push.",
        keyed("row", "actor_seconds"),
    ),
    counter("pushes", "short", (), "Segments that replay has taken.", number("row", "writers", "pushes")),
    counter("pushed_bytes", "bytes", (), "Bytes of these.", number("row", "writers", "bytes")),
    counter(
        "push_seconds",
        "s",
        (),
        "Time from a segment's first offer until it was taken, summed.",
        number("row", "writers", "push_s"),
    ),
    counter(
        "push_wait_seconds",
        "s",
        (),
        "Time that actors have waited for a push before the next step.",
        number("row", "writers", "wait_s"),
    ),
    counter("push_refusals", "short", (), "Pushes that a shard has put off.", number("row", "writers", "refusals")),
    counter(
        "push_losses",
        "short",
        (),
        "Pushes that a shard did not answer, and were offered again.",
        number("row", "writers", "lost"),
    ),
    gauge(
        "policy_age_seconds",
        "s",
        (),
        "Age that the oldest policy had when an actor last acted with it.",
        number("row", "policy_age_s"),
    ),
    gauge("policy_version", "short", (), "Updates that the oldest policy holds.", number("row", "policy_version")),
    gauge("policy_age_updates", "short", (), "Updates made since that policy.", number("row", "policy_age_updates")),
    # Replay
    gauge(
        "replay_fill_ratio", "percentunit", ("shard",), "Share of its capacity that a shard holds.", by_shard("fill")
    ),
    gauge("replay_bytes", "bytes", ("shard",), "Memory that a shard takes, full or not.", by_shard("bytes")),
    gauge(
        "replay_node_available_bytes",
        "bytes",
        ("shard",),
        "Memory that is left on a shard's node.",
        by_shard("node_available_bytes"),
    ),
    gauge("replay_node_total_bytes", "bytes", ("shard",), "Memory of a shard's node.", by_shard("node_total_bytes")),
    counter("replay_inserts", "short", ("shard",), "Transitions inserted.", by_shard("inserts")),
    counter("replay_samples", "short", ("shard",), "Rows sampled.", by_shard("samples")),
    counter(
        "replay_repeated_pushes",
        "short",
        ("shard",),
        "Pushes offered again after they were taken, and ignored.",
        by_shard("repeated_pushes"),
    ),
    gauge(
        "replay_steps_ahead",
        "short",
        ("shard",),
        "Environment steps by which acting is ahead of learning.",
        by_shard("steps_ahead"),
    ),
    counter(
        "limiter_wait_seconds", "s", ("shard", "side"), "Time that the limiter has held a side back.", by_side("wait_s")
    ),
    counter(
        "limiter_refusals", "short", ("shard", "side"), "Requests that the limiter has put off.", by_side("refusals")
    ),
    gauge(
        "samples_per_insert",
        "short",
        (),
        "Rows sampled for each one inserted since warm-up.",
        number("row", "samples_per_insert"),
    ),
    gauge(
        "samples_per_insert_target",
        "short",
        (),
        "What the limiter holds it at.",
        number("row", "samples_per_insert_target"),
    ),
    # Learner
    counter("updates", "short", (), "Updates made.", number("row", "updates")),
    counter("policies", "short", (), "Policies published.", number("row", "policies_published")),
    counter(
        "learner_seconds",
        "s",
        ("activity",),
        "The learner's time: data_wait, update, publish.",
        keyed("row", "learner_seconds"),
    ),
    gauge("learner_threads", "short", (), "CPU threads that make updates now.", number("row", "learner_threads")),
    counter("sample_requests", "short", (), "Requests of the learner to replay.", number("row", "sampler", "requests")),
    counter("sampled_bytes", "bytes", (), "Bytes that they have brought.", number("row", "sampler", "bytes")),
    gauge(
        "loss",
        "short",
        ("network",),
        "Loss of the newest update.",
        chosen(LEARNER, {"critic": "critic_loss", "policy": "policy_loss"}),
    ),
    gauge(
        "gradient_norm",
        "short",
        ("network",),
        "L2 norm of a network's gradient.",
        chosen(LEARNER, {"critic": "critic_gradient_norm", "policy": "policy_gradient_norm"}),
    ),
    gauge(
        "parameter_norm",
        "short",
        ("network",),
        "L2 norm of a network's parameters.",
        chosen(LEARNER, {"critic": "critic_parameter_norm", "policy": "policy_parameter_norm"}),
    ),
    gauge("entropy", "short", (), "Entropy of the policy in the newest batch, in nats.", number(*LEARNER, "entropy")),
    gauge("temperature", "short", (), "Entropy temperature.", number(*LEARNER, "temperature")),
    gauge(
        "value_mean",
        "short",
        ("of",),
        "Mean value of the newest batch: of the policy's actions, and of the target.",
        chosen(LEARNER, {"policy": "q_mean", "target": "target_mean"}),
    ),
    gauge("reward_scale", "short", TASK, "What rewards are divided by.", by_task("row", "reward_scale")),
    # What breaks, and what is kept
    gauge(
        "begun_timestamp_seconds",
        "dateTimeAsIso",
        (),
        "When the run was started, resumed, or its coordinator was.",
        number("begun", "time"),
    ),
    gauge("failed", "bool", ("cause",), "1 when the run has failed, in its last answer.", tallied("failed")),
    counter(
        "restarts",
        "short",
        ("part", "cause"),
        "Parts that died and were begun again.",
        tallied("restarts"),
        lasting=True,
    ),
    gauge(
        "restart_timestamp_seconds",
        "dateTimeAsIso",
        ("part", "cause"),
        "When one last did.",
        tallied("restarted"),
    ),
    gauge(
        "scaled_timestamp_seconds",
        "dateTimeAsIso",
        (),
        "When another number of actors was last asked for.",
        number("scaled", "time"),
    ),
    counter("checkpoints", "short", (), "Checkpoints written.", number("checkpoints"), lasting=True),
    counter(
        "checkpoint_failures",
        "short",
        (),
        "Checkpoints that could not be written.",
        number("checkpoint_failures"),
        lasting=True,
    ),
    gauge(
        "checkpoint_steps",
        "short",
        (),
        "Environment steps at the newest checkpoint.",
        number("checkpoint", "env_steps"),
    ),
    gauge(
        "checkpoint_interval_steps",
        "short",
        (),
        "Environment steps between checkpoints; 0 for none.",
        number("checkpoint_interval"),
    ),
    gauge(
        "checkpoint_timestamp_seconds",
        "dateTimeAsIso",
        (),
        "When the newest checkpoint was whole.",
        number("checkpoint", "time"),
    ),
    gauge(
        "checkpoint_seconds",
        "s",
        ("part",),
        "Time that it took: learner and replay to write, and to commit, which is to see that it is whole and on disk.",
        keyed("checkpoint", "part_seconds"),
    ),
    gauge(
        "checkpoint_bytes",
        "bytes",
        ("part",),
        "Bytes that it took: the learner's state, and what replay's snapshot has added.",
        keyed("checkpoint", "part_bytes"),
    ),
)
