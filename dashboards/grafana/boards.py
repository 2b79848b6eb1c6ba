"""Grafana dashboards as plain data, from which dashboards.py makes JSON."""

from __future__ import annotations

from dashboards.grafana.cluster_board import CLUSTER
from dashboards.grafana.learner_board import LEARNER
from dashboards.grafana.panels import (
    BENCHMARK,
    BOTTLENECK,
    NEVER,
    RATIO,
    RUN,
    SPEED,
    TASK,
    UPDATES,
    WAITS,
    Board,
    Panel,
    of_run,
    rate,
)

RESTARTS = Panel(
    "Deaths",
    "Parts that died and were begun again since the run began, by cause.",
    "short",
    ((f"sum by (run, part, cause) (brc_restarts_total{RUN}) > 0", "{{run}} {{part}}: {{cause}}"),),
    1.0,
)
SCORE = Panel(
    "Score of the suite",
    "Normalised score of the deterministic policy over all tasks that have one: mean and interquartile mean.",
    "percentunit",
    ((f"brc_suite_score{RUN}", "{{run}} {{statistic}}"),),
    0.0,
    0.5,
    wide=True,
)

BOARDS = (
    Board(
        "brc-overview",
        "BRC overview",
        "Whether the agent learns, which side is waited for, what broke.",
        ("run",),
        {
            "Does it learn": (
                SCORE,
                Panel(
                    "Progress",
                    "Share that is made of the budget of environment steps, and of updates.",
                    "percentunit",
                    (
                        (f"brc_run_steps{RUN} / brc_run_steps_budget{RUN}", "{{run}} steps"),
                        (f"brc_run_updates{RUN} / brc_run_updates_budget{RUN}", "{{run}} updates"),
                    ),
                    NEVER,
                ),
                Panel("Time left", "At the recent speed.", "s", ((f"brc_run_left_seconds{RUN}", "{{run}}"),), NEVER),
            ),
            "What limits it": (BOTTLENECK, WAITS, SPEED, UPDATES),
            "What broke": (
                RESTARTS,
                Panel(
                    "Actors missing",
                    "Actors that are wanted and do not collect.",
                    "short",
                    (
                        (
                            'sum by (run) (brc_actors{run=~"$run", state="desired"}) - '
                            'sum by (run) (brc_actors{run=~"$run", state="alive"})',
                            "{{run}}",
                        ),
                    ),
                    1.0,
                ),
                Panel(
                    "Since the last checkpoint",
                    "Environment steps that the learner would fall back by.",
                    "short",
                    ((f"brc_run_steps{RUN} - brc_checkpoint_steps{RUN}", "{{run}}"),),
                    NEVER,
                ),
                Panel(
                    "Last heard",
                    "Time since the coordinator last heard all parts.",
                    "s",
                    ((f"time() - brc_report_timestamp_seconds{RUN}", "{{run}}"),),
                    120.0,
                ),
            ),
        },
    ),
    Board(
        "brc-learning",
        "BRC learning",
        "Every task: evaluation, training, the paper's curve where there is one.",
        ("run", "benchmark", "task"),
        {
            "Evaluation": (
                Panel(
                    "Return",
                    "Of the deterministic policy, of the random one, and in the paper after as many steps.",
                    "short",
                    (
                        (f"brc_evaluation_return{TASK}", "{{run}} {{task}}"),
                        (f"brc_random_return{TASK}", "{{run}} {{task}} random"),
                        ('brc_published{run=~"$run", benchmark!="metaworld", task=~"$task"}', "{{task}} paper"),
                    ),
                    NEVER,
                    wide=True,
                ),
                Panel(
                    "Success",
                    "Share of episodes with success, and in the paper after as many steps.",
                    "percentunit",
                    (
                        (f"brc_evaluation_success{TASK}", "{{run}} {{task}}"),
                        ('brc_published{run=~"$run", benchmark="metaworld", task=~"$task"}', "{{task}} paper"),
                    ),
                    0.0,
                    0.5,
                ),
                Panel(
                    "Score",
                    "Normalised.",
                    "percentunit",
                    ((f"brc_evaluation_score{TASK}", "{{run}} {{task}}"),),
                    0.0,
                    0.5,
                ),
            ),
            "Training": (
                Panel(
                    "Recent returns",
                    "Mean, tenth, half and nine tenths of the last 20 episodes, with the policy's own noise.",
                    "short",
                    ((f"brc_episode_return{TASK}", "{{run}} {{task}} {{statistic}}"),),
                    NEVER,
                    wide=True,
                ),
                Panel(
                    "Recent success",
                    "Share of the last 20 episodes.",
                    "percentunit",
                    ((f"brc_episode_success{TASK}", "{{run}} {{task}}"),),
                    0.0,
                    0.5,
                ),
                Panel(
                    "Steps",
                    "Environment steps of each task a second.",
                    "cps",
                    ((rate("brc_environment_steps_total", "task", TASK), "{{run}} {{task}}"),),
                    0.0,
                    0.1,
                ),
                Panel(
                    "Reward scale",
                    "What a task's rewards are divided by.",
                    "short",
                    ((f"brc_reward_scale{TASK}", "{{run}} {{task}}"),),
                    NEVER,
                ),
            ),
        },
    ),
    Board(
        "brc-actors",
        "BRC actors",
        "Who collects, what their time goes to, how old their policies are.",
        ("run", "benchmark"),
        {
            "Fleet": (
                Panel(
                    "Actors",
                    "Wanted, alive, pending.",
                    "short",
                    ((f"brc_actors{BENCHMARK}", "{{run}} {{benchmark}} {{state}}"),),
                    NEVER,
                    wide=True,
                ),
                Panel(
                    "Replaced",
                    "Actors replaced in the time shown.",
                    "short",
                    ((f"increase(brc_actor_restarts_total{BENCHMARK}[$__range])", "{{run}} {{benchmark}}"),),
                    3.0,
                ),
                Panel(
                    "Episodes",
                    "Training episodes ended a second.",
                    "cps",
                    ((rate("brc_episodes_total", "benchmark", BENCHMARK), "{{run}} {{benchmark}}"),),
                    NEVER,
                ),
                Panel(
                    "Bad numbers",
                    "In the time shown: episodes dropped for NaN, infinite or huge numbers, those clipped to float16.",
                    "short",
                    (
                        (f"increase(brc_bad_episodes_total{BENCHMARK}[$__range])", "{{run}} {{task}} episodes"),
                        (f"increase(brc_clipped_observations_total{BENCHMARK}[$__range])", "{{run}} {{task}} clipped"),
                    ),
                    1.0,
                ),
            ),
            "Time": (
                Panel(
                    "What their time goes to",
                    "Seconds a second, over all actors: act, step, record, push.",
                    "short",
                    ((rate("brc_actor_seconds_total", "activity"), "{{run}} {{activity}}"),),
                    NEVER,
                ),
                Panel(
                    "Push latency",
                    "From a segment's first offer until replay has taken it, mean.",
                    "s",
                    ((f"{of_run('brc_push_seconds_total')} / {of_run('brc_pushes_total')}", "{{run}}"),),
                    10.0,
                ),
                Panel(
                    "Pushes",
                    "Taken, put off and lost, a second.",
                    "cps",
                    tuple(
                        (of_run(f"brc_{name}_total"), "{{run}} " + name)
                        for name in ("pushes", "push_refusals", "push_losses")
                    ),
                    NEVER,
                ),
                Panel(
                    "Pushed bytes", "Bytes a second.", "Bps", ((of_run("brc_pushed_bytes_total"), "{{run}}"),), NEVER
                ),
            ),
            "Policies": (
                Panel(
                    "Age",
                    "Of the oldest policy that acts, when it last did.",
                    "s",
                    ((f"brc_policy_age_seconds{RUN}", "{{run}}"),),
                    600.0,
                ),
                Panel(
                    "Version",
                    "Updates that the oldest policy holds, and how many have been made since.",
                    "short",
                    (
                        (f"brc_policy_version{RUN}", "{{run}} version"),
                        (f"brc_policy_age_updates{RUN}", "{{run}} behind"),
                    ),
                    NEVER,
                ),
                Panel("Published", "Policies a second.", "cps", ((of_run("brc_policies_total"), "{{run}}"),), NEVER),
            ),
        },
    ),
    Board(
        "brc-replay",
        "BRC replay",
        "Every shard: what it holds, takes and gives, and whom its limiter holds back.",
        ("run",),
        {
            "Content": (
                Panel(
                    "Fill",
                    "Share of its capacity that a shard holds.",
                    "percentunit",
                    ((f"brc_replay_fill_ratio{RUN}", "{{run}} {{shard}}"),),
                    NEVER,
                ),
                Panel(
                    "Memory",
                    "That a shard takes, full or not.",
                    "bytes",
                    ((f"brc_replay_bytes{RUN}", "{{run}} {{shard}}"),),
                    NEVER,
                ),
                Panel(
                    "Left on its node",
                    "Share of a node's memory that is available.",
                    "percentunit",
                    (
                        (
                            f"brc_replay_node_available_bytes{RUN} / brc_replay_node_total_bytes{RUN}",
                            "{{run}} {{shard}}",
                        ),
                    ),
                    0.05,
                    0.1,
                ),
            ),
            "Flow": (
                Panel(
                    "Inserts",
                    "Transitions a second.",
                    "cps",
                    ((rate("brc_replay_inserts_total", "shard"), "{{run}} {{shard}}"),),
                    0.0,
                    0.1,
                ),
                Panel(
                    "Samples",
                    "Rows a second.",
                    "cps",
                    ((rate("brc_replay_samples_total", "shard"), "{{run}} {{shard}}"),),
                    0.0,
                    0.1,
                ),
                RATIO,
                Panel(
                    "Sampled bytes",
                    "Bytes a second that the learner got.",
                    "Bps",
                    ((of_run("brc_sampled_bytes_total"), "{{run}}"),),
                    NEVER,
                ),
            ),
            "Limiter": (
                Panel(
                    "Held back",
                    "Share of the time that the limiter holds a side back.",
                    "percentunit",
                    ((rate("brc_limiter_wait_seconds_total", "shard, side"), "{{run}} {{shard}} {{side}}"),),
                    0.95,
                ),
                Panel(
                    "Put off",
                    "Requests a second.",
                    "cps",
                    ((rate("brc_limiter_refusals_total", "shard, side"), "{{run}} {{shard}} {{side}}"),),
                    NEVER,
                ),
                Panel(
                    "Ahead",
                    "Environment steps by which acting is ahead of learning.",
                    "short",
                    ((f"brc_replay_steps_ahead{RUN}", "{{run}} {{shard}}"),),
                    NEVER,
                ),
                Panel(
                    "Pushed again",
                    "Pushes that were offered again after they were taken, in the time shown.",
                    "short",
                    ((f"increase(brc_replay_repeated_pushes_total{RUN}[$__range])", "{{run}} {{shard}}"),),
                    NEVER,
                ),
            ),
        },
    ),
    LEARNER,
    CLUSTER,
)
