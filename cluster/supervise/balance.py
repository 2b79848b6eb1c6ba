"""Balance of actors between benchmarks, so that no task lags: `--actors.balance auto`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from actors.fleet import Fleet
from actors.reports import ActorReport
from cluster.plan.plan import Plan
from cluster.run.presence import Presence
from dashboards.rows import Row
from replay.json_text import json_text

INTERVAL_S = 30.0  # between two moves: the effect of a move must show first
LEAST_WAIT = 0.1  # if the learner waits for a smaller share of its time, actors do not hold the run up
LEAST_GAIN = 1.05  # least factor that a move must gain in speed; smaller gains are noise


class Balancer:
    """Move a run's actors between benchmarks, as `brc scale` would, if the configuration says so. Do not move actors
    within INTERVAL_S of the start or of the last look."""

    def __init__(self, plan: Plan, presence: Presence) -> None:
        self.plan = plan
        self.presence = presence
        self.looked_at = time.monotonic()

    def consider(self, row: Row, fleet: Fleet) -> None:
        """Move actors if that helps, but not while actors are pending or leaving. `row` is the newest metrics row."""
        if self.plan.config.actors.balance == "fixed" or row.learner_wait_share <= LEAST_WAIT:
            return
        parts, now = row.actors_by_benchmark, time.monotonic()
        settled = not fleet.outgoing and not any(part.pending for part in parts.values())
        if not settled or now - self.looked_at < INTERVAL_S:
            return
        self.looked_at = now
        seconds = {name: step_seconds(fleet.reports_of(name)) for name in parts}
        if not all(seconds.values()):
            return
        counts = {name: part.desired for name, part in parts.items()}
        cpus = {name: self.plan.part(name).cpus for name in parts}
        most = {name: self.plan.most_actors(name) for name in parts}
        found = balanced(counts, self.plan.sizes, seconds, cpus, most)
        if found != counts:
            self.presence.say(desired=json_text(found))


def step_seconds(reports: Sequence[ActorReport]) -> float:
    """Return the seconds of an actor for a step of one copy, without waits for replay; 0 if there were no steps."""
    busy = sum(sum(report.seconds.values()) - report.writer.wait_s for report in reports)
    steps = sum(report.transitions for report in reports)
    return max(busy, 1e-9) / steps if steps else 0.0


def speed(actors: int, tasks: int, seconds: float) -> float:
    """Return steps per second of a benchmark's slowest task, as plan.assignments deals its tasks to actors."""
    return actors // tasks / seconds if actors >= tasks else 1.0 / (-(-tasks // actors) * seconds)


def balanced(
    counts: Mapping[str, int],
    tasks: Mapping[str, int],
    seconds: Mapping[str, float],
    cpus: Mapping[str, float],
    most: Mapping[str, int],
) -> dict[str, int]:
    """Return actor counts by benchmark, with the fewest moves to the slowest benchmark that make its slowest task
    faster; `counts` itself if no move makes the whole run faster.

    Args:
        tasks: number of tasks of each benchmark.
        seconds: measured seconds for a step of each benchmark.
        cpus: CPUs of one actor of each; 0 counts as 1. The total of all actors does not grow.
        most: largest number of actors of each benchmark.
    """
    before = {name: speed(counts[name], tasks[name], seconds[name]) for name in counts}
    slowest = min(before, key=lambda name: before[name])
    takes = {name: cpus[name] or 1.0 for name in counts}
    found, room = dict(counts), 0.0
    while found[slowest] < most[slowest]:
        while room < takes[slowest]:
            others = [name for name in found if name != slowest and found[name] > 1]
            if not others:
                return dict(counts)
            giver = max(others, key=lambda name: speed(found[name] - 1, tasks[name], seconds[name]))
            found[giver] -= 1
            room += takes[giver]
        found[slowest] += 1
        room -= takes[slowest]
        least = min(speed(found[name], tasks[name], seconds[name]) for name in found)
        if least > LEAST_GAIN * before[slowest]:
            return found
        if least < before[slowest]:  # another benchmark would now be slower than the slowest was
            break
    return dict(counts)
