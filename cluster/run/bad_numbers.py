"""What a run says of numbers that do not reach replay as they were: the first of each task, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.actor import ActorReport
from dashboards.sinks.console import Console
from dashboards.sinks.records import Records
from replay.store.ring import LARGEST_FLOAT16


class BadNumbers:
    """Remembers what tasks it has told of."""

    def __init__(self, records: Records, console: Console) -> None:
        self.records = records
        self.console = console
        self.dropped: set[str] = set()
        self.clipped: set[str] = set()

    def heard(self, reports: Sequence[ActorReport]) -> None:
        """Tell of rewards and observations that have cost an episode."""
        for bad in (bad for report in reports for bad in report.bad):
            if bad.name in self.dropped:
                continue
            self.dropped.add(bad.name)
            details = {"task": bad.name, "copy": bad.copy, "what": bad.what, "value": str(bad.value)}
            self.records.event("bad_numbers", str(bad), **details)
            self.console.say(
                f"{bad}: the episode is dropped, and so is any other with such numbers; metrics count them as "
                f"bad_episodes"
            )

    def clips(self, clipped: dict[str, int]) -> None:
        """Tell of observations that do not fit in replay's type, given how many numbers of each task did not."""
        for task, count in clipped.items():
            if not count or task in self.clipped:
                continue
            self.clipped.add(task)
            self.records.event("observations_clipped", f"beyond {LARGEST_FLOAT16:.0f}", task=task, numbers=count)
            self.console.say(
                f"{task} has observations beyond float16's range, which replay clips to {LARGEST_FLOAT16:.0f}: use "
                f"--replay.observation-dtype float32 if they mean something; metrics count them as clipped"
            )


def taken_over(stats: dict[str, Any]) -> str:
    """What a shard did not take over since it is no number, to be said behind what it did."""
    if not stats["bad_segments"]:
        return ""
    lost = f"{stats['bad_segments']:,} segments of {stats['bad_transitions']:,} transitions"
    return f"; {lost} had NaN, infinite or huge numbers and were dropped"
