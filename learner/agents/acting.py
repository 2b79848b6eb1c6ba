"""A description, as data, of how actors choose actions with a published network. Actors get it with their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from learner.networks.description import Network


@dataclass(frozen=True)
class Epsilon:
    """The share of random actions. It falls linearly from 1, at the first update, to `final`.

    It depends on the policy's version, not on an actor's steps: all actors explore equally, even an actor that starts
    later.
    """

    final: float
    updates: int  # the number of updates over which it falls

    def at(self, version: int) -> float:
        return max(self.final, 1.0 - (1.0 - self.final) * version / self.updates)


ALWAYS_GREEDY = Epsilon(0.0, 1)


@dataclass(frozen=True)
class Acting:
    """The network that runs in an actor, and how an action is chosen from its output.

    Attributes:
        network: description of the network whose arrays are published.
        choice: the rule: the tanh of a normal draw ("tanh_normal"), or the action of greatest value ("greedy").
        num_actions: number of actions of each task; only for "greedy".
        epsilon: share of random actions in training; only for "greedy".
    """

    network: Network
    choice: Literal["tanh_normal", "greedy"] = "tanh_normal"
    num_actions: tuple[int, ...] = ()
    epsilon: Epsilon = ALWAYS_GREEDY
