"""A network in numpy for a fixed set of rows, made from its description and the arrays that a learner has published.

An actor then needs no deep-learning framework: 60 MB of private memory instead of 187 with torch. The rows are the same
at every call. So a constant input of a row, such as its task's embedding, becomes part of the next layer's bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from learner.networks.description import (
    TASK,
    BatchNorm,
    Bounded,
    Clipped,
    Concat,
    Constant,
    Convolution,
    Dense,
    Ensemble,
    Flatten,
    Group,
    Heads,
    Interpolation,
    Layer,
    LayerNorm,
    Layers,
    Network,
    OwnTask,
    ReLU,
    Residual,
    RMSNorm,
    RunningNorm,
    Scaler,
    UnitNorm,
)

Arrays = Mapping[str, np.ndarray]
Step = Callable[[np.ndarray], Any]


class NumpyNetwork:
    """A network that is called with observations (rows, *shape). It returns an array, or several arrays by name, as its
    description says.

    Args:
        arrays: parameters and buffers by their names in the description.
        constants: inputs besides the observation by name, each (rows, size).
    """

    def __init__(self, network: Network, arrays: Arrays, constants: Arrays) -> None:
        self.steps = Builder(arrays, constants).steps(network.layers, "")

    def __call__(self, observations: np.ndarray) -> Any:
        return run(self.steps, observations)


def run(steps: list[Step], x: Any) -> Any:
    for step in steps:
        x = step(x)
    return x


class Builder:
    """Turns layers into steps. `behind` holds columns that a Concat has appended to x and no Dense has used yet.
    `owned` says whether a step may overwrite x, because an earlier step made that array."""

    def __init__(self, arrays: Arrays, constants: Arrays) -> None:
        self.arrays = arrays
        self.constants = constants
        self.behind: np.ndarray | None = None
        self.owned = False

    def steps(self, layers: Layers, prefix: str) -> list[Step]:
        found: list[Step] = []
        for before, layer, behind in zip((None, *layers), layers, (*layers[1:], None), strict=False):
            if self.behind is not None and not isinstance(layer, (Dense, Concat, Group, Ensemble, Heads, OwnTask)):
                found.append(self._appended())
            found += self._steps(before, layer, behind, prefix)
        return found

    def _steps(self, before: Layer | None, layer: Layer, behind: Layer | None, prefix: str) -> list[Step]:
        match layer:
            case Concat(names):
                pending = [] if self.behind is None else [self.behind]
                self.behind = np.concatenate([*pending, *(self.constants[name] for name in names)], axis=1)
                return []
            case Dense(name):
                return [self._dense(prefix + name, behind, prefix)]
            case BatchNorm() if isinstance(before, Dense):
                return []  # part of the Dense
            case BatchNorm(name):
                factor, offset = self._folded(layer, prefix + name)
                self.owned = True
                return [lambda x: x * factor + offset]
            case RMSNorm(name, epsilon):
                scale, small = self._array(prefix + name, "weight").copy(), np.float32(epsilon)
                self.owned = True
                return [lambda x: x / np.sqrt(np.mean(np.square(x), axis=1, keepdims=True) + small) * scale]
            case UnitNorm(epsilon):
                small, self.owned = np.float32(epsilon), True
                return [lambda x: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), small)]
            case Scaler(name, initial, of_scale):
                scale = self._array(prefix + name, "weight") * np.float32(initial / of_scale)
                self.owned = True
                return [lambda x: x * scale]
            case Constant(value):
                self.owned = True
                return [lambda x: np.pad(x, ((0, 0), (0, 1)), constant_values=value)]
            case OwnTask(outputs):
                rows, tasks = np.arange(len(self.constants[TASK])), self.constants[TASK].argmax(axis=1)
                self.owned = True
                return [lambda x: x.reshape(*x.shape[:-1], -1, outputs)[..., rows, tasks, :]]
            case Clipped(low, high):
                return [lambda x: np.clip(x, low, high)]
            case LayerNorm(name, epsilon):
                scale, offset = self._array(prefix + name, "weight").copy(), self._array(prefix + name, "bias").copy()
                self.owned, small = True, np.float32(epsilon)
                if isinstance(before, Dense):  # its weights are centred
                    return [lambda x: normalize(x, scale, offset, small)]
                return [lambda x: normalize(x - x.mean(axis=1, keepdims=True), scale, offset, small)]
            case RunningNorm(name, epsilon):
                mean, variance = self._array(prefix + name, "mean").copy(), self._array(prefix + name, "variance")
                factor = np.float32(1.0) / np.sqrt(variance + np.float32(epsilon))
                self.owned = True
                return [lambda x: (x - mean) * factor]
            case ReLU(shift):
                owned, self.owned, over = self.owned, True, np.float32(shift)
                relu: Step = (lambda x: np.maximum(x, 0.0, out=x)) if owned else (lambda x: np.maximum(x, 0.0))
                return [relu, lambda x: x + over] if shift else [relu]
            case Bounded(low, high):
                half, middle = np.float32((high - low) / 2), np.float32((high + low) / 2)
                return [lambda x: bounded(x, half, middle)]
            case Group(name, inner) if has_convolutions(inner):
                from actors.policies.torch_layers import TorchLayers

                self.owned = True
                return [TorchLayers(inner, self.arrays, f"{prefix}{name}.")]
            case Group(name, inner):
                return self.steps(inner, f"{prefix}{name}.")
            case Residual(name, inner):
                return [self._residual(inner, f"{prefix}{name}.")]
            case Interpolation(name, inner, initial, of_scale):
                return [self._interpolation(inner, f"{prefix}{name}.", initial / of_scale)]
            case Ensemble(name, count, inner):
                members = self._alike([(f"{prefix}{name}.{member}.", inner) for member in range(count)])
                return [lambda x: np.stack([run(steps, x) for steps in members])]
            case Heads(branches):
                return [self._heads(branches, prefix)]
            case _:
                raise ValueError(f"{layer} outside of a group with convolutions has no numpy form")

    def _appended(self) -> Step:
        """Return the step that appends the pending columns, for a layer that needs them in x."""
        assert self.behind is not None
        columns, self.behind, self.owned = self.behind, None, True
        return lambda x: np.concatenate((x, columns), axis=1)

    def _array(self, name: str, part: str) -> np.ndarray:
        return self.arrays[f"{name}.{part}"]

    def _folded(self, layer: BatchNorm, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the factor and the offset, (features,), to which a BatchNorm comes down with running statistics."""
        deviation = np.sqrt(self._array(name, "variance") + np.float32(layer.epsilon))
        factor = self._array(name, "weight") / deviation
        return factor, self._array(name, "bias") - self._array(name, "mean") * factor

    def _dense(self, name: str, following: Layer | None, prefix: str) -> Step:
        weight = self._array(name, "weight")
        bias = self.arrays.get(f"{name}.bias", np.zeros(len(weight), np.float32))
        behind, self.behind, self.owned = self.behind, None, True
        if behind is not None:
            inputs = weight.shape[1] - behind.shape[1]
            bias = behind @ weight[:, inputs:].T + bias
            weight = weight[:, :inputs]
        if isinstance(following, LayerNorm):
            weight, bias = centred(weight, bias)
        if isinstance(following, BatchNorm):
            factor, offset = self._folded(following, prefix + following.name)
            weight, bias = weight * factor[:, None], bias * factor + offset
        return product(weight, bias)

    def _residual(self, inner: Layers, prefix: str) -> Step:
        owned, self.owned = self.owned, False
        steps = self.steps(inner, prefix)
        self.owned = True

        def added(x: np.ndarray) -> np.ndarray:
            hidden: np.ndarray = run(steps, x)
            if not owned:
                hidden += x
                return hidden
            x += hidden
            return x

        return added

    def _interpolation(self, inner: Layers, prefix: str, ratio: float) -> Step:
        self.owned = False
        steps, share = self.steps(inner, prefix), self._array(f"{prefix}interpolation", "weight") * np.float32(ratio)
        self.owned = True
        return lambda x: x + share * (run(steps, x) - x)

    def _alike(self, parts: list[tuple[str, Layers]]) -> list[list[Step]]:
        """Return the steps of several networks that begin with the same x. None of them may overwrite it."""
        behind, found = self.behind, []
        for prefix, layers in parts:
            self.behind, self.owned = behind, False
            found.append(self.steps(layers, prefix))
        return found

    def _heads(self, branches: tuple[tuple[str, Layers], ...], prefix: str) -> Step:
        """Return the step of all branches. Their first layers become one product if all are Dense and none follows a
        Concat."""
        first = [layers[0] for _, layers in branches]
        dense = [layer for layer in first if isinstance(layer, Dense) and layer.bias]
        if len(dense) < len(first) or self.behind is not None:
            rest = self._alike([(prefix, layers) for _, layers in branches])
            return lambda x: {name: run(steps, x) for (name, _), steps in zip(branches, rest, strict=True)}
        names = [prefix + layer.name for layer in dense]
        weight = np.concatenate([self._array(name, "weight") for name in names])
        bias = np.concatenate([self._array(name, "bias") for name in names])
        multiply, ends = product(weight, bias), np.cumsum([layer.outputs for layer in dense]).tolist()
        parts = [slice(end - layer.outputs, end) for layer, end in zip(dense, ends, strict=True)]
        self.owned = True
        rest = [self.steps(layers[1:], prefix) for _, layers in branches]

        def heads(x: np.ndarray) -> dict[str, np.ndarray]:
            x = multiply(x)
            return {name: run(steps, x[:, part]) for (name, _), part, steps in zip(branches, parts, rest, strict=True)}

        return heads


def has_convolutions(layers: Layers) -> bool:
    return any(
        isinstance(layer, (Convolution, Flatten))
        or (isinstance(layer, (Group, Residual)) and has_convolutions(layer.layers))
        for layer in layers
    )


def product(weight: np.ndarray, bias: np.ndarray) -> Step:
    """Return the step x W' + b for a weight (outputs, inputs) and a bias (outputs,) or (rows, outputs)."""
    transposed, offset = np.ascontiguousarray(weight.T), bias.copy()

    def multiply(x: np.ndarray) -> np.ndarray:
        found: np.ndarray = x @ transposed
        found += offset
        return found

    return multiply


def centred(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (weight, bias) of a layer before a LayerNorm, with the mean over its outputs subtracted.

    LayerNorm subtracts this mean from every row. The mean is linear in the row's inputs, so it can be subtracted here,
    once a policy instead of once a step.
    """
    return weight - weight.mean(axis=0), bias - bias.mean(axis=-1, keepdims=True)


def normalize(x: np.ndarray, scale: np.ndarray, offset: np.ndarray, epsilon: np.float32) -> np.ndarray:
    """Apply LayerNorm over the last axis, in place, to rows whose mean is zero."""
    variance = np.einsum("ij,ij->i", x, x)
    variance /= x.shape[1]
    variance += epsilon
    np.sqrt(variance, out=variance)
    x /= variance[:, None]
    x *= scale
    x += offset
    return x


def bounded(x: np.ndarray, half: np.float32, middle: np.float32) -> np.ndarray:
    """Compute middle + half * tanh(x) in place."""
    np.tanh(x, out=x)
    x *= half
    x += middle
    return x
