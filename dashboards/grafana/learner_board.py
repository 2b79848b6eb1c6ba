"""Dashboard of the learner: its speed, the health of its numbers, its checkpoints."""

from __future__ import annotations

from dashboards.grafana.panels import NEVER, RUN, UPDATES, Board, Panel, of_run, rate

LEARNER = Board(
    "brc-learner",
    "BRC learner",
    "Updates, where their time goes, and whether they are sound.",
    ("run",),
    {
        "Speed": (
            UPDATES,
            Panel(
                "What its time goes to",
                "Share of the time: waiting for data, updates, publishing.",
                "percentunit",
                ((rate("brc_learner_seconds_total", "activity"), "{{run}} {{activity}}"),),
                NEVER,
            ),
            Panel(
                "Requests",
                "To replay, a second.",
                "cps",
                ((of_run("brc_sample_requests_total"), "{{run}}"),),
                NEVER,
            ),
            Panel(
                "Threads",
                "Of a CPU, that make updates now.",
                "short",
                ((f"brc_learner_threads{RUN}", "{{run}}"),),
                NEVER,
            ),
        ),
        "Soundness": (
            Panel("Loss", "Of the newest update.", "short", ((f"brc_loss{RUN}", "{{run}} {{network}}"),), NEVER),
            Panel(
                "Gradient norm",
                "L2, before the step.",
                "short",
                ((f"brc_gradient_norm{RUN}", "{{run}} {{network}}"),),
                NEVER,
            ),
            Panel(
                "Parameter norm",
                "L2, after the step.",
                "short",
                ((f"brc_parameter_norm{RUN}", "{{run}} {{network}}"),),
                NEVER,
            ),
            Panel(
                "Value",
                "Mean over a batch: of the policy's actions, and of the target.",
                "short",
                ((f"brc_value_mean{RUN}", "{{run}} {{of}}"),),
                NEVER,
            ),
            Panel("Entropy", "Of the policy, in nats.", "short", ((f"brc_entropy{RUN}", "{{run}}"),), NEVER),
            Panel("Temperature", "Weight of the entropy.", "short", ((f"brc_temperature{RUN}", "{{run}}"),), NEVER),
        ),
        "Checkpoints": (
            Panel(
                "Duration",
                "Of the newest: to write the learner's state and replay's snapshot, and to commit them.",
                "s",
                ((f"brc_checkpoint_seconds{RUN}", "{{run}} {{part}}"),),
                600.0,
            ),
            Panel(
                "Size",
                "Of the newest: the learner's state, and what replay's snapshot has added.",
                "bytes",
                ((f"brc_checkpoint_bytes{RUN}", "{{run}} {{part}}"),),
                NEVER,
            ),
            Panel(
                "Failed",
                "Since the run began.",
                "short",
                ((f"brc_checkpoint_failures_total{RUN}", "{{run}}"),),
                1.0,
            ),
        ),
    },
)
