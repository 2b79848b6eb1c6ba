"""Discrete actions: the best by the critic, and how often another is taken to explore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actors.policies.policy import NumpyBroNet, unpack
from replay.policy_store import PolicyMessage

if TYPE_CHECKING:
    from actors.policies.image_encoder import ImageEncoder


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


class GreedyPolicy:
    """Acts for a fixed set of rows with a discrete critic. Images go through torch, the rest through numpy: for
    convolutions, unlike for the small products of other policies, numpy takes three to four times as long.

    Args:
        message: what the learner published.
        row_tasks: (rows,) task index of every row that `act` will be given.
        num_actions: (rows,) how many actions each row has.
        most_actions: of all tasks of the run.
    """

    def __init__(
        self, message: PolicyMessage, row_tasks: np.ndarray, num_actions: np.ndarray, most_actions: int
    ) -> None:
        arrays = unpack(message)
        self.version = message.version
        self.published_at = message.published_at
        table = arrays.get("task_embeddings")
        embeddings = None if table is None else table[row_tasks]
        self.encode: ImageEncoder | None = None
        if any(name.startswith("encoder.") for name in arrays):
            from actors.policies.image_encoder import ImageEncoder

            self.encode = ImageEncoder(arrays, "encoder.")
        self.heads: list[tuple[NumpyBroNet, np.ndarray, np.ndarray]] = []
        while (prefix := f"heads.{len(self.heads)}.") + "input.weight" in arrays:
            weight, bias = arrays[prefix + "output.weight"], arrays[prefix + "output.bias"]
            self.heads.append((NumpyBroNet(arrays, prefix, embeddings), np.ascontiguousarray(weight.T), bias.copy()))
        self.unavailable = np.arange(most_actions) >= num_actions[:, None]

    def act(self, observations: np.ndarray) -> np.ndarray:
        """(rows, 1) float32: the index of the best action of each row."""
        found: np.ndarray = self.values(observations).argmax(axis=1)[:, None].astype(np.float32)
        return found

    def values(self, observations: np.ndarray) -> np.ndarray:
        """(rows, actions) mean of the heads' values, in units of the value limit; -inf for actions a row has not."""
        features = observations if self.encode is None else self.encode(observations)
        rows, actions = self.unavailable.shape
        total = np.zeros((rows, actions), np.float32)
        for trunk, weight, bias in self.heads:
            logits = (trunk(features) @ weight + bias).reshape(rows, actions, -1)
            logits -= logits.max(axis=-1, keepdims=True)
            mass = np.exp(logits, out=logits)
            atoms = np.linspace(-1.0, 1.0, mass.shape[-1], dtype=np.float32)
            total += mass @ atoms / mass.sum(axis=-1)
        total /= len(self.heads)
        total[self.unavailable] = -np.inf
        return total
