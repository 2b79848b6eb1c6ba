"""The policy in numpy, so that an actor needs no deep-learning framework: 60 MB private memory against 187 with torch.

It reads the message that the learner publishes: one flat float32 array and the names and shapes of what is in it. The
names are those of learner.networks.modules.Policy, or of learner.agents.discrete.DiscreteCritic, which
actors/policies/greedy.py acts with; `task_embeddings` holds the critic's normalised rows.
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


class NumpyBroNet:
    """A BroNet without its output layer, for a fixed set of rows, whose embeddings are a constant of the first layer.

    Args:
        prefix: of its layers' names.
        embeddings: (rows, embedding) that are the last of each row's inputs; None without any.
    """

    def __init__(self, arrays: dict[str, np.ndarray], prefix: str, embeddings: np.ndarray | None) -> None:
        first, bias = arrays[prefix + "input.weight"], arrays[prefix + "input.bias"]
        if embeddings is not None:
            inputs = first.shape[1] - embeddings.shape[1]
            bias = embeddings @ first[:, inputs:].T + bias
            first = first[:, :inputs]
        self.input = centred(first, bias)
        self.input_norm = norm(arrays, prefix + "input_norm")
        self.blocks: list[tuple[Any, ...]] = []
        while f"{prefix}blocks.{len(self.blocks)}.first.weight" in arrays:
            block = f"{prefix}blocks.{len(self.blocks)}."
            self.blocks.append(
                (
                    *centred(arrays[block + "first.weight"], arrays[block + "first.bias"]),
                    norm(arrays, block + "first_norm"),
                    *centred(arrays[block + "second.weight"], arrays[block + "second.bias"]),
                    norm(arrays, block + "second_norm"),
                )
            )

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        weight, bias = self.input
        x = inputs @ weight
        x += bias
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
        found: np.ndarray = x
        return found


class NumpyPolicy:
    """Acts for a fixed set of rows.

    Args:
        message: what the learner published.
        row_tasks: (rows,) task index of every row that `act` will be given.
    """

    def __init__(self, message: PolicyMessage, row_tasks: np.ndarray) -> None:
        arrays = unpack(message)
        self.version = message.version
        self.published_at = message.published_at
        embeddings = arrays.get("task_embeddings")
        self.trunk = NumpyBroNet(arrays, "trunk.", None if embeddings is None else embeddings[row_tasks])
        # Both heads in one product.
        self.head = np.ascontiguousarray(np.concatenate([arrays["mean.weight"], arrays["log_std.weight"]]).T)
        self.head_bias = np.concatenate([arrays["mean.bias"], arrays["log_std.bias"]])
        self.action_size = len(arrays["mean.bias"])

    def act(self, observations: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Actions (rows, action) in [-1, 1] for (rows, observation); deterministic when `noise` is None."""
        mean, log_std = self.distribution(observations)
        if noise is not None:
            std = np.exp(log_std, out=log_std)
            std *= noise
            mean += std
        found: np.ndarray = np.tanh(mean)
        return found

    def distribution(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and log standard deviation before the tanh, each (rows, action)."""
        heads = self.trunk(observations) @ self.head
        heads += self.head_bias
        mean, log_std = heads[:, : self.action_size], heads[:, self.action_size :]
        np.tanh(log_std, out=log_std)
        log_std *= (LOG_STD_MAX - LOG_STD_MIN) / 2
        log_std += (LOG_STD_MAX + LOG_STD_MIN) / 2
        return mean, log_std


def centred(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(weight.T, bias) of a layer before a LayerNorm, with the mean over its outputs taken off already.

    LayerNorm subtracts that mean from every row, which is linear in the row's inputs: done here once a policy, it need
    not be done at every step.
    """
    return np.ascontiguousarray((weight - weight.mean(axis=0)).T), bias - bias.mean(axis=-1, keepdims=True)


def norm(arrays: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    return arrays[name + ".weight"].copy(), arrays[name + ".bias"].copy()


def normalize(x: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> None:
    """LayerNorm over the last axis of rows whose mean is zero, in place."""
    variance = np.einsum("ij,ij->i", x, x)
    variance /= x.shape[1]
    variance += LAYER_NORM_EPSILON
    np.sqrt(variance, out=variance)
    x /= variance[:, None]
    x *= scale
    x += offset
