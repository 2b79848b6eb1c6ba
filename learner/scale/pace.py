"""Finds the fastest number of threads for updates, repeatedly during a run, since other processes start and end.

The only times it knows are the reported durations of updates, so that equal durations lead to equal choices. A trial is
some updates on another number of threads. A trial begins at once when updates have become slower than they were with
another number. Otherwise every number has its turn, the nearest first; a trial then begins when the time that the
previous trial lost is less than 2 percent of the time since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

SPAN_S = 0.5  # seconds of updates that are judged together: a span; a longer request is a span by itself
WORTH = 1.05  # factor by which another number of threads must be faster to be chosen
LOSS = 0.02  # share of the time that trials may lose
HASTY_LOSS = 0.05  # the same, for trials because updates have become slower
BETWEEN = 10  # least time between two trials, in durations of the last trial


def steps(most: int) -> list[int]:
    """Return the numbers of threads to try, ascending: powers of two, all, and all but one (for another process)."""
    powers = [1 << exponent for exponent in range(most.bit_length()) if 1 << exponent < most]
    return sorted({*powers, max(1, most - 1), most})


class Pace:
    """The number of threads of one learner. Read `threads` before each request and call `took` after it.

    Attributes:
        threads: number of threads for the next request.
        settled: best number of threads known so far.
        known: seconds of an update by number of threads, when that number was last used.
        lost: seconds that trials took more than the same updates would have taken without them.
        total: seconds of all updates.
    """

    def __init__(self, choices: Sequence[int], first: int, known: Mapping[int, float] | None = None) -> None:
        self.choices = sorted(choices)
        self.threads = self.settled = first
        self.known = dict(known or {})
        self.lost = self.total = 0.0
        self.rest = 0.0  # seconds until the next trial
        self.turns: list[int] = []  # numbers still to try in this round, in reverse order
        self.span: list[tuple[float, int]] = []  # seconds and updates of each request in the present span

    def took(self, seconds: float, updates: int) -> None:
        """Report how long the updates of a request took, all with `threads`."""
        self.span.append((seconds, updates))
        self.total += seconds
        spent = sum(seconds for seconds, _ in self.span)
        if spent < SPAN_S:
            return
        made = sum(updates for _, updates in self.span)
        # The median ignores a single slow request, such as one that waited for a checkpoint.
        self.known[self.threads] = now = median(seconds / updates for seconds, updates in self.span)
        self.span.clear()
        if self.threads == self.settled:
            self._consider(now, spent)
        else:
            self._judge(now, spent, made)

    def _consider(self, now: float, spent: float) -> None:
        """Begin a trial, if one is due."""
        self.rest -= spent
        others = [choice for choice in self.choices if choice != self.settled and choice in self.known]
        best = min(others, key=lambda choice: self.known[choice], default=self.settled)
        if self.known[best] * WORTH < now and self.lost <= HASTY_LOSS * self.total:
            self.threads = best
        elif self.rest <= 0 and len(self.choices) > 1:
            self.turns = self.turns or self._others()
            self.threads = self.turns.pop()

    def _others(self) -> list[int]:
        """Return all choices but the settled one, the nearest last."""
        place = self.choices.index(self.settled)
        places = sorted(range(len(self.choices)), key=lambda other: -abs(other - place))
        return [self.choices[other] for other in places[:-1]]

    def _judge(self, now: float, spent: float, made: int) -> None:
        """End a trial: keep its number of threads if that is faster by the factor WORTH."""
        before = self.known[self.settled]
        self.lost += max(0.0, spent - made * before)
        if now * WORTH < before:
            self.settled, self.rest, self.turns = self.threads, 0.0, []
        else:
            self.rest = max(BETWEEN * spent, (spent - made * before) / LOSS)
            self.threads = self.settled
