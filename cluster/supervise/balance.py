"""Which benchmark should have which actors, so that no task lags: `--actors.balance auto`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from actors.fleet import Fleet
from actors.reports import ActorReport
from cluster.plan.plan import Plan
from cluster.run.presence import Presence
from dashboards.rows import Row
from replay.json_text import json_text

INTERVAL_S = 30.0  # between two moves: what one did must show first
LEAST_WAIT = 0.1  # share of its time that the learner must wait for actors to be what holds the run up
LEAST_GAIN = 1.05  # what a move must make of the slowest task's speed: below, measurements decide by chance


class Balancer:
    """Moves a run's actors, if its configuration says so, as if `brc scale` had asked for it. Not within INTERVAL_S of
    the start or of the last time it looked."""

    def __init__(self, plan: Plan, presence: Presence) -> None:
        self.plan = plan
        self.presence = presence
        self.looked_at = time.monotonic()

    def consider(self, row: Row, fleet: Fleet) -> None:
        """`row` is the newest of metrics.jsonl. Nothing is moved while actors are pending or about to leave."""
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
    """What one step of one copy takes a benchmark's actors, without their waiting for replay; 0 if they made none."""
    busy = sum(sum(report.seconds.values()) - report.writer.wait_s for report in reports)
    steps = sum(report.transitions for report in reports)
    return max(busy, 1e-9) / steps if steps else 0.0


def speed(actors: int, tasks: int, seconds: float) -> float:
    """Steps per second of the slowest of a benchmark's tasks, as plan.assignments deals them to its actors."""
    return actors // tasks / seconds if actors >= tasks else 1.0 / (-(-tasks // actors) * seconds)


def balanced(
    counts: Mapping[str, int],
    tasks: Mapping[str, int],
    seconds: Mapping[str, float],
    cpus: Mapping[str, float],
    most: Mapping[str, int],
) -> dict[str, int]:
    """Actors of every benchmark, with as many moved to the slowest one as make its slowest task faster; the same as
    `counts` when no move makes the whole run faster.

    Args:
        tasks: of each benchmark.
        seconds: for a step of each, as measured.
        cpus: of one actor of each. Together they take no more than before; 0 counts as 1.
        most: actors that each may have.
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
        if least < before[slowest]:  # by now another would be slower
            break
    return dict(counts)
