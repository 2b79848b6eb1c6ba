"""The policy in numpy, so that an actor needs no deep-learning framework: 60 MB private memory against 187 with torch.

It reads the message that the learner publishes: one flat float32 array and the names and shapes of what is in it. The
names are those of learner.networks.Policy; `task_embeddings` holds the critic's normalised rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.policy_store import PolicyMessage

LAYER_NORM_EPSILON = np.float32(1e-6)
LOG_STD_MIN, LOG_STD_MAX = np.float32(-10.0), np.float32(2.0)


def unpack(message: PolicyMessage) -> dict[str, np.ndarray]:
    """The named arrays of a message, views of its parameters."""
    arrays, offset = {}, 0
    for name, shape in message.layout:
        size = int(np.prod(shape))
        arrays[name] = message.parameters[offset : offset + size].reshape(shape)
        offset += size
    if offset != len(message.parameters):
        raise ValueError(f"policy message holds {len(message.parameters)} numbers, its layout names {offset}")
    return arrays


class NumpyPolicy:
    """Acts for a fixed set of rows. The task embedding's share of the first layer is a constant of each row's task.

    Args:
        message: what the learner published.
        row_tasks: (rows,) task index of every row that `act` will be given.
    """

    def __init__(self, message: PolicyMessage, row_tasks: np.ndarray) -> None:
        arrays = unpack(message)
        self.version = message.version
        self.published_at = message.published_at
        first, bias = arrays["trunk.input.weight"], arrays["trunk.input.bias"]
        embeddings = arrays.get("task_embeddings")
        embedding_size = 0 if embeddings is None else embeddings.shape[1]
        observation_size = first.shape[1] - embedding_size
        self.input = np.ascontiguousarray(first[:, :observation_size].T)
        if embeddings is None:
            self.input_bias = bias
        else:
            self.input_bias = (embeddings @ first[:, observation_size:].T + bias)[row_tasks]
        self.input_norm = self._norm(arrays, "trunk.input_norm")
        self.blocks: list[tuple[Any, ...]] = []
        while f"trunk.blocks.{len(self.blocks)}.first.weight" in arrays:
            prefix = f"trunk.blocks.{len(self.blocks)}."
            self.blocks.append(
                (
                    *self._dense(arrays, prefix + "first"),
                    self._norm(arrays, prefix + "first_norm"),
                    *self._dense(arrays, prefix + "second"),
                    self._norm(arrays, prefix + "second_norm"),
                )
            )
        self.mean = self._dense(arrays, "mean")
        self.log_std = self._dense(arrays, "log_std")

    @staticmethod
    def _dense(arrays: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
        return np.ascontiguousarray(arrays[name + ".weight"].T), arrays[name + ".bias"].copy()

    @staticmethod
    def _norm(arrays: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
        return arrays[name + ".weight"].copy(), arrays[name + ".bias"].copy()

    def act(self, observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """Actions (rows, action) in [-1, 1] for (rows, observation); deterministic when `noise` is None."""
        hidden = self.trunk(observations)
        weight, bias = self.mean
        pre_tanh = hidden @ weight
        pre_tanh += bias
        if noise is not None:
            pre_tanh += np.exp(self._log_std(hidden)) * noise
        return np.tanh(pre_tanh, out=pre_tanh)

    def distribution(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and log standard deviation before the tanh, each (rows, action)."""
        hidden = self.trunk(observations)
        return hidden @ self.mean[0] + self.mean[1], self._log_std(hidden)

    def _log_std(self, hidden: np.ndarray) -> np.ndarray:
        weight, bias = self.log_std
        raw = hidden @ weight
        raw += bias
        np.tanh(raw, out=raw)
        raw *= (LOG_STD_MAX - LOG_STD_MIN) / 2
        raw += (LOG_STD_MAX + LOG_STD_MIN) / 2
        return raw

    def trunk(self, observations: np.ndarray) -> np.ndarray:
        x = observations @ self.input
        x += self.input_bias
        normalize(x, *self.input_norm)
        np.maximum(x, 0.0, out=x)
        for first, first_bias, first_norm, second, second_bias, second_norm in self.blocks:
            hidden = x @ first
            hidden += first_bias
            normalize(hidden, *first_norm)
            np.maximum(hidden, 0.0, out=hidden)
            hidden = hidden @ second
            hidden += second_bias
            normalize(hidden, *second_norm)
            x += hidden
        return x


def normalize(x: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> None:
    """LayerNorm over the last axis, in place."""
    x -= x.mean(axis=1, keepdims=True)
    variance = np.einsum("ij,ij->i", x, x)
    variance /= x.shape[1]
    variance += LAYER_NORM_EPSILON
    x *= (1.0 / np.sqrt(variance))[:, None]
    x *= scale
    x += offset
