"""How actors act with what an agent publishes, as data: it is handed to them with their other settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from learner.networks.description import Network


@dataclass(frozen=True)
class Epsilon:
    """The share of actions that are random: it falls linearly from 1, at the first update, to `final`.

    It follows the policy's version, not an actor's steps: all actors explore alike, also those that begin later.
    """

    final: float
    updates: int  # over which it falls

    def at(self, version: int) -> float:
        return max(self.final, 1.0 - (1.0 - self.final) * version / self.updates)


ALWAYS_GREEDY = Epsilon(0.0, 1)


@dataclass(frozen=True)
class Acting:
    """What runs in an actor.

    Attributes:
        network: of the published arrays.
        choice: how an action comes of its output: the tanh of a normal draw, or the greatest of categorical values.
        num_actions: of each task, for the latter.
        epsilon: share of random actions in training, likewise.
    """

    network: Network
    choice: Literal["tanh_normal", "greedy"] = "tanh_normal"
    num_actions: tuple[int, ...] = ()
    epsilon: Epsilon = ALWAYS_GREEDY
