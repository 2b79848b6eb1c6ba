"""Console of a live run: a live table in a terminal, one plain line per report elsewhere."""

from __future__ import annotations

import math
import sys
from typing import IO, Any, cast

from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dashboards.rows import EvaluationRow, Row
from dashboards.sinks.view import View, viewed

MOST_NAMED = 8  # tasks that a line names one by one


class Console:
    """Show metrics rows and evaluations on standard output or in a file, while it can be written. Use as a context
    manager: the exit restores the terminal."""

    def __init__(self, tasks: list[str], steps: int, file: IO[str] | View | None = None) -> None:
        self.tasks = tasks
        self.steps = steps
        self.view = viewed(file or sys.stdout)
        self.rich = RichConsole(highlight=False, soft_wrap=True, file=cast(IO[str], self.view))
        self.live = Live(console=self.rich, auto_refresh=False) if self.rich.is_terminal else None
        self.evaluated: dict[str, float] = {}
        self.random: dict[str, float] = {}

    def __enter__(self) -> Console:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.live is not None:
            self.live.stop()

    @property
    def lost(self) -> str:
        """Reason why nothing is shown any more, or ""."""
        return self.view.lost

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.rich.print(Text(line))

    def evaluation(self, row: EvaluationRow) -> None:
        returns = {task: value for task, value in row.mean_return.items() if value is not None}
        if row.is_random:
            self.random = returns
        else:
            self.evaluated = returns
        scores = ", ".join(f"{task.split('/', 1)[1]} {number}" for task, number in found(row).items())
        if len(returns) > MOST_NAMED:
            scores = f"{len(returns)} tasks"
        if row.score_mean is not None and row.score_iqm is not None and len(returns) > 1:
            scores += f"; mean score {row.score_mean:.3f}, interquartile mean {row.score_iqm:.3f}"
        who = "random policy" if row.is_random else f"evaluation at {row.env_steps:,} steps"
        self.say(f"{who}: {scores}")

    def metrics(self, row: Row) -> None:
        if self.live is None:
            self.say(plain_line(row, self.steps))
        else:
            self.live.update(
                Group(self._tasks(row), Text(plain_line(row, self.steps)), Text(second_line(row))), refresh=True
            )

    def _tasks(self, row: Row) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("task")
        for name in ("random", "evaluated", "training", "success", "episodes", "steps"):
            table.add_column(name, justify="right")
        for task in self.tasks[:30]:
            success = row.success[task]
            table.add_row(
                task,
                number(self.random.get(task)),
                number(self.evaluated.get(task)),
                number(row.mean_return[task]),
                "-" if success is None else f"{success:.2f}",
                f"{row.episodes[task]:,}",
                f"{row.env_steps_by_task[task]:,}",
            )
        if len(self.tasks) > 30:
            table.add_row(f"and {len(self.tasks) - 30} more, see metrics.jsonl")
        return table


def found(row: EvaluationRow) -> dict[str, str]:
    """Return the result of an evaluation by task: the return, and the share of successful episodes if above 0."""
    words = {task: f"{value:.0f}" for task, value in row.mean_return.items() if value is not None}
    shares = {task: f" ({share:.0%} success)" for task, share in row.success.items() if share}
    return {task: word + shares.get(task, "") for task, word in words.items()}


def plain_line(row: Row, steps: int) -> str:
    """Return the run in one line: progress, speed, ratio, policy age, replay, bottleneck, time left."""
    done = 100.0 * row.env_steps / steps
    returns = [value for value in row.mean_return.values() if value is not None]
    score = f"return {sum(returns) / len(returns):.0f} | " if returns else ""
    return (
        f"{row.env_steps:,}/{steps:,} steps ({done:.0f}%) | {score}{row.steps_per_s:.0f} steps/s/task | "
        f"{row.updates:,} updates, {row.updates_per_s:.0f}/s | samples/insert {row.samples_per_insert:.2f} of "
        f"{row.samples_per_insert_target:.2f} | policy {row.policy_age_s:.1f} s old | replay "
        f"{100 * row.replay_fill:.0f}% of {size(row.replay_bytes)} | bottleneck: {row.bottleneck} | "
        f"{duration(row.seconds_left)} left"
    )


def second_line(row: Row) -> str:
    entropy, temperature = row.learner.get("entropy"), row.learner.get("temperature")
    agent = "" if entropy is None else f"entropy {entropy:.2f}, temperature {temperature:.4f} | "
    return (
        f"{agent}policy {row.policy_age_updates} updates old | "
        f"learner waits {100 * row.learner_wait_share:.0f}%, actors wait {100 * row.actor_wait_share:.0f}% | "
        f"actors {row.actors}/{row.actors_desired}"
    )


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def duration(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"


def size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
