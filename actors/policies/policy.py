"""Policies of actors: a published network in numpy, and how its outputs become actions.

A message of the learner is one flat float32 array, with the names and shapes of the arrays in it. These are the
parameters and buffers of the network that acts, and `task_embeddings`, the normalised rows of the tasks' embeddings.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from actors.policies.network import NumpyNetwork
from learner.agents.acting import Acting
from learner.networks.description import TASK
from replay.policy_store import PolicyMessage


class Policy(Protocol):
    """Acts for a fixed set of rows.

    Attributes:
        version: number of learner updates in it.
        published_at: seconds of the monotonic clock.
    """

    version: int
    published_at: float

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return the best known actions, (rows, action) float32, for observations (rows, *observation)."""

    def explore(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Like `act`, with random draws that try other actions."""


def make_policy(acting: Acting, message: PolicyMessage, row_tasks: np.ndarray) -> Policy:
    """Make the policy for rows of these tasks; `row_tasks` (rows,) are their indices."""
    if acting.choice == "greedy":
        from actors.policies.greedy import GreedyPolicy

        return GreedyPolicy(acting, message, row_tasks)
    return TanhNormalPolicy(acting, message, row_tasks)


def unpack(message: PolicyMessage) -> dict[str, np.ndarray]:
    """Return the named arrays of a message, as views of its parameters."""
    arrays, offset = {}, 0
    for name, shape in message.layout:
        size = int(np.prod(shape))
        arrays[name] = message.parameters[offset : offset + size].reshape(shape)
        offset += size
    if offset != len(message.parameters):
        raise ValueError(f"policy message holds {len(message.parameters)} numbers, its layout names {offset}")
    return arrays


def network_of(acting: Acting, message: PolicyMessage, row_tasks: np.ndarray) -> NumpyNetwork:
    """Make the network of a message, for rows of these tasks."""
    arrays = unpack(message)
    table = arrays.get("task_embeddings")
    return NumpyNetwork(acting.network, arrays, {} if table is None else {TASK: table[row_tasks]})


class TanhNormalPolicy:
    """Acts with tanh of a normal draw. The network gives its mean and log standard deviation (docs/algorithm.md)."""

    def __init__(self, acting: Acting, message: PolicyMessage, row_tasks: np.ndarray) -> None:
        self.version = message.version
        self.published_at = message.published_at
        self.network = network_of(acting, message, row_tasks)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return tanh of the mean, in [-1, 1]."""
        mean, _ = self.distribution(observations)
        found: np.ndarray = np.tanh(mean)
        return found

    def explore(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        mean, log_std = self.distribution(observations)
        drawn = rng.standard_normal(mean.shape, dtype=np.float32)
        std = np.exp(log_std, out=log_std)
        std *= drawn
        mean += std
        found: np.ndarray = np.tanh(mean)
        return found

    def distribution(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the log standard deviation before the tanh, each (rows, action)."""
        found = self.network(observations)
        return found["mean"], found["log_std"]
