"""Reports numbers that are dropped or clipped before they reach replay: only the first of each task."""

from __future__ import annotations

from collections.abc import Sequence

from actors.reports import ActorReport
from dashboards import events
from dashboards.sinks.console import Console
from dashboards.sinks.records import Records
from replay.stats import Content
from replay.store.ring import LARGEST_FLOAT16


class BadNumbers:
    """Reports bad numbers once for each task, and remembers the tasks."""

    def __init__(self, records: Records, console: Console) -> None:
        self.records = records
        self.console = console
        self.dropped: set[str] = set()
        self.clipped: set[str] = set()

    def heard(self, reports: Sequence[ActorReport]) -> None:
        """Report rewards and observations because of which an episode was dropped."""
        for bad in (bad for report in reports for bad in report.bad):
            if bad.name in self.dropped:
                continue
            self.dropped.add(bad.name)
            value = str(bad.value)
            self.records.event(
                events.BadNumbers(reason=str(bad), task=bad.name, copy=bad.copy, what=bad.what, value=value)
            )
            self.console.say(
                f"{bad}: the episode is dropped, and so is any other with such numbers; metrics count them as "
                f"bad_episodes"
            )

    def clips(self, clipped: dict[str, int]) -> None:
        """Report observations beyond the range of replay's type. `clipped` is the number of clipped numbers by task."""
        for task, count in clipped.items():
            if not count or task in self.clipped:
                continue
            self.clipped.add(task)
            beyond = f"beyond {LARGEST_FLOAT16:.0f}"
            self.records.event(events.ObservationsClipped(reason=beyond, task=task, numbers=count))
            self.console.say(
                f"{task} has observations beyond float16's range, which replay clips to {LARGEST_FLOAT16:.0f}: use "
                f"--replay.observation-dtype float32 if they mean something; metrics count them as clipped"
            )


def taken_over(content: Content) -> str:
    """Return a clause on the segments that a shard dropped for bad numbers, to append to a sentence on its content."""
    if not content.bad_segments:
        return ""
    lost = f"{content.bad_segments:,} segments of {content.bad_transitions:,} transitions"
    return f"; {lost} had NaN, infinite or huge numbers and were dropped"
