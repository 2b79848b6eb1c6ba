"""The policy for discrete actions: the best action by the critic, and sometimes a random action to explore."""

from __future__ import annotations

import numpy as np

from actors.policies.policy import network_of
from learner.agents.acting import Acting
from replay.policy_store import PolicyMessage


class GreedyPolicy:
    """Takes the action of the greatest value. A value is the mean over the critic's heads."""

    def __init__(self, acting: Acting, message: PolicyMessage, row_tasks: np.ndarray) -> None:
        self.version = message.version
        self.published_at = message.published_at
        self.epsilon = acting.epsilon
        self.network = network_of(acting, message, row_tasks)
        self.num_actions = np.array(acting.num_actions)[row_tasks]
        self.unavailable = np.arange(max(acting.num_actions)) >= self.num_actions[:, None]

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return the index of the best action of each row, (rows, 1) float32."""
        found: np.ndarray = self.values(observations).argmax(axis=1)[:, None].astype(np.float32)
        return found

    def explore(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Like `act`, with a share `epsilon` of uniformly random actions."""
        explores = rng.random(len(self.num_actions)) < self.epsilon.at(self.version)
        others = rng.integers(0, self.num_actions)[:, None].astype(np.float32)
        return np.where(explores[:, None], others, self.act(observations))

    def values(self, observations: np.ndarray) -> np.ndarray:
        """Return (rows, actions), the mean of the heads' values in units of the value limit. It is -inf for actions
        that a row's task lacks."""
        heads = self.network(observations)
        total = np.zeros(self.unavailable.shape, np.float32)
        for head in heads:
            logits = head.reshape(*self.unavailable.shape, -1)
            if logits.shape[-1] == 1:  # the value itself, learned by squared error
                total += logits[..., 0]
                continue
            logits -= logits.max(axis=-1, keepdims=True)
            mass = np.exp(logits, out=logits)
            atoms = np.linspace(-1.0, 1.0, mass.shape[-1], dtype=np.float32)
            total += mass @ atoms / mass.sum(axis=-1)
        total /= len(heads)
        total[self.unavailable] = -np.inf
        return total
