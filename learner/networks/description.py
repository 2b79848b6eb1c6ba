"""A network as data: layers as frozen dataclasses, one after another.

The forms of a network are made from its description: torch's module (modules.py), numpy's for actors
(actors/policies/network.py), ONNX's for other programs (cluster/cli/onnx_graph.py), and what it takes in memory and
operations (sizes.py). This module imports nothing but the standard library, so all of them can read it.

A network begins with the input `observation`, and other inputs are appended where a Concat names them. Names of layers
are those of parameters in checkpoints and published policies, with dots where layers are nested.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

Shape = tuple[int, ...]  # of one row
OBSERVATION, ACTION, TASK = "observation", "action", "task"  # inputs; a task is a row of the embedding table


@dataclass(frozen=True)
class Dense:
    """x W' + b. W is orthogonal with this gain at first, b zero."""

    name: str
    outputs: int
    gain: float = math.sqrt(2.0)


@dataclass(frozen=True)
class Convolution:
    """Three by three, with a border of zeros, over (channels, height, width). Xavier's uniform at first."""

    name: str
    channels: int


@dataclass(frozen=True)
class MaxPool:
    """The largest of three by three, at every second place: height and width are halved, rounding up."""


@dataclass(frozen=True)
class Flatten:
    """All numbers of a row in a line."""


@dataclass(frozen=True)
class LayerNorm:
    """Rows with mean 0 and variance 1, then a scale and an offset that are learnt. flax's epsilon; torch's is 1e-5."""

    name: str
    epsilon: float = 1e-6


@dataclass(frozen=True)
class RunningNorm:
    """(x - mean) / sqrt(variance + epsilon), with running statistics of what the learner has been given.

    These are buffers: they are published, saved and followed with the parameters. Source: spec of critics, section 8.
    """

    name: str
    epsilon: float = 1e-8


@dataclass(frozen=True)
class ReLU:
    """max(x, 0)."""


@dataclass(frozen=True)
class Bounded:
    """low + (high - low) / 2 * (1 + tanh(x)), in the precision of the observation."""

    low: float
    high: float


@dataclass(frozen=True)
class Concat:
    """Other inputs behind x, in this order."""

    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Layers whose names begin with this one."""

    name: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Residual:
    """x plus what the layers make of it. There is no Concat in them. It is what is compiled and sharded as one."""

    name: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Ensemble:
    """`count` networks of the same layers, each with parameters of its own, named by its number. Their outputs are
    stacked: (count, rows, outputs). It is the last layer."""

    name: str
    count: int
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Heads:
    """Several outputs of the same x, by name. It is the last layer."""

    branches: tuple[tuple[str, tuple[Layer, ...]], ...]


Layer = (
    Dense
    | Convolution
    | MaxPool
    | Flatten
    | LayerNorm
    | RunningNorm
    | ReLU
    | Bounded
    | Concat
    | Group
    | Residual
    | Ensemble
    | Heads
)
Layers = tuple[Layer, ...]


@dataclass(frozen=True)
class Network:
    """Layers, and the shapes of their inputs by name, one row each."""

    inputs: tuple[tuple[str, Shape], ...]
    layers: Layers

    def shape(self, name: str) -> Shape:
        """Of an input. Raises KeyError for one that the network does not have."""
        return dict(self.inputs)[name]


@dataclass(frozen=True)
class Placed:
    """A layer that holds or changes numbers, where it stands in a network.

    Attributes:
        path: its full name; "" for one without.
        before, after: shapes of one row.
        copies: of it, in an ensemble.
    """

    path: str
    layer: Layer
    before: Shape
    after: Shape
    copies: int = 1


def placed(network: Network) -> list[Placed]:
    """Every layer of a network that is no container, in order, once for an ensemble."""
    found: list[Placed] = []
    _place(network.layers, network.shape(OBSERVATION), network, "", 1, found)
    return found


def _place(layers: Layers, shape: Shape, network: Network, prefix: str, copies: int, found: list[Placed]) -> Shape:
    for layer in layers:
        before = shape
        match layer:
            case Group(name, inner) | Residual(name, inner):
                shape = _place(inner, before, network, f"{prefix}{name}.", copies, found)
                if isinstance(layer, Residual) and shape != before:
                    raise ValueError(f"residual {prefix}{name} makes {shape} of {before}: a sum needs the same")
            case Ensemble(name, count, inner):
                shape = _place(inner, before, network, f"{prefix}{name}.0.", copies * count, found)
            case Heads(branches):
                for _, inner in branches:
                    _place(inner, before, network, prefix, copies, found)
            case _:
                shape = shape_after(layer, before, network)
                name = getattr(layer, "name", "")
                found.append(Placed(prefix + name if name else "", layer, before, shape, copies))
    return shape


def shape_after(layer: Layer, before: Shape, network: Network) -> Shape:
    """What a layer that is no container makes of rows of this shape."""
    match layer:
        case Dense(_, outputs):
            return (outputs,)
        case Convolution(_, channels):
            return (channels, *before[1:])
        case MaxPool():
            return (before[0], *(-(-side // 2) for side in before[1:]))
        case Flatten():
            return (math.prod(before),)
        case Concat(names):
            return (before[0] + sum(network.shape(name)[0] for name in names),)
        case _:
            return before


def residuals(layers: Layers, prefix: str = "") -> Iterator[tuple[str, Residual]]:
    """Every residual with its full name, of all members of ensembles."""
    for layer in layers:
        match layer:
            case Residual(name, _):
                yield prefix + name, layer
            case Group(name, inner):
                yield from residuals(inner, f"{prefix}{name}.")
            case Ensemble(name, count, inner):
                for member in range(count):
                    yield from residuals(inner, f"{prefix}{name}.{member}.")
            case Heads(branches):
                for _, inner in branches:
                    yield from residuals(inner, prefix)
            case _:
                pass
