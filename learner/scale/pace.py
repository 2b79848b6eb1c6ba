"""How many threads updates take, found again and again while they are made: other processes come and go.

It is told how long updates took and knows no other time, so that equal times lead to equal threads. Now and then some
updates are made on another number of threads: a trial. It comes at once when updates have become slower than they were
with another number. Else every number has its turn, the nearest first, and waits until what the trial before has lost
is less than 2 percent of the time since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

SPAN_S = 0.5  # of updates that are taken together; a request that takes longer stands for itself
WORTH = 1.05  # by what factor other threads must be faster to be taken
LOSS = 0.02  # share of the time that trials may lose
HASTY_LOSS = 0.05  # the same, where updates have become slower
BETWEEN = 10  # spans between two trials at least


def steps(most: int) -> list[int]:
    """Numbers of threads that are worth a try, ascending: powers of two, all, and all but one for a busy neighbour."""
    powers = [1 << exponent for exponent in range(most.bit_length()) if 1 << exponent < most]
    return sorted({*powers, max(1, most - 1), most})


class Pace:
    """The threads of one learner. Ask `threads` before each request and tell `took` after it.

    Attributes:
        threads: what the next request is to be made with.
        settled: what is the best as far as is known.
        known: seconds of an update, by threads, when they were last used.
        lost: seconds that trials took beyond what the same updates would have taken without.
        total: seconds of all updates.
    """

    def __init__(self, choices: Sequence[int], first: int, known: Mapping[int, float] | None = None) -> None:
        self.choices = sorted(choices)
        self.threads = self.settled = first
        self.known = dict(known or {})
        self.lost = self.total = 0.0
        self.rest = 0.0  # seconds until the next trial
        self.turns: list[int] = []  # those that are to have one, the last first
        self.span: list[tuple[float, int]] = []  # seconds and updates of requests

    def took(self, seconds: float, updates: int) -> None:
        """Take in how long a request's updates took, all with `threads`."""
        self.span.append((seconds, updates))
        self.total += seconds
        spent = sum(seconds for seconds, _ in self.span)
        if spent < SPAN_S:
            return
        made = sum(updates for _, updates in self.span)
        # The median: what a request waits for once, such as a checkpoint, is not due to its threads.
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
        """All but the settled one, the nearest last."""
        place = self.choices.index(self.settled)
        places = sorted(range(len(self.choices)), key=lambda other: -abs(other - place))
        return [self.choices[other] for other in places[:-1]]

    def _judge(self, now: float, spent: float, made: int) -> None:
        """End a trial: stay with its threads if that is worth it."""
        before = self.known[self.settled]
        self.lost += max(0.0, spent - made * before)
        if now * WORTH < before:
            self.settled, self.rest, self.turns = self.threads, 0.0, []
        else:
            self.rest = max(BETWEEN * spent, (spent - made * before) / LOSS)
            self.threads = self.settled
