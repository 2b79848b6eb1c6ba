"""A network as data: layers as frozen dataclasses, one after another.

Every form of a network is built from its description: the torch module (modules.py), the numpy network of actors
(actors/policies/network.py), the ONNX graph for other programs (cluster/cli/onnx_graph.py), and the counts of
parameters and operations (sizes.py). This module imports only the standard library, so all of them can import it.

The first layer gets the input `observation`. A Concat appends the other inputs that it names. The names of layers are
also the names of parameters in checkpoints and published policies, with dots where layers are nested.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]  # of one row
OBSERVATION, ACTION, TASK = "observation", "action", "task"  # inputs; a task is a row of the embedding table


@dataclass(frozen=True)
class Dense:
    """Compute x W' + b, or x W' without a bias. b is initialised to zero, W by `start`:

    orthogonal: with this gain, each of `blocks` blocks of rows by itself.
    he_normal: normal with variance 2 / inputs, cut at two standard deviations (flax).

    If `projected`, every row of W, the incoming weights of an output, has norm 1 from the start, and again after every
    step of an optimiser.
    """

    name: str
    outputs: int
    gain: float = math.sqrt(2.0)
    start: Literal["orthogonal", "he_normal"] = "orthogonal"
    bias: bool = True
    projected: bool = False
    blocks: int = 1


@dataclass(frozen=True)
class Convolution:
    """A 3 x 3 convolution, zero-padded, over (channels, height, width). Weights are initialised Xavier-uniform."""

    name: str
    channels: int


@dataclass(frozen=True)
class MaxPool:
    """Take the maximum over 3 x 3 windows with stride 2. Height and width are halved, rounded up."""


@dataclass(frozen=True)
class Flatten:
    """Reshape each row to one dimension."""


@dataclass(frozen=True)
class LayerNorm:
    """Normalise rows to mean 0 and variance 1, then apply a learned scale and offset. The default epsilon is that of
    flax; torch's is 1e-5."""

    name: str
    epsilon: float = 1e-6


@dataclass(frozen=True)
class RunningNorm:
    """Compute (x - mean) / sqrt(variance + epsilon), with running statistics of the learner's observations.

    The statistics are buffers: they are published and saved with the parameters.
    """

    name: str
    epsilon: float = 1e-8


@dataclass(frozen=True)
class BatchNorm:
    """Normalise every feature to mean 0 and variance 1 over the rows of a batch, then apply a learned scale and offset.

    It divides by the root of the biased variance plus epsilon. Actors use running statistics, which are published with
    the parameters. A batch moves them by `momentum` towards its mean and its variance, biased or `unbiased`. If
    `projected`, scale and offset together have the norm sqrt(features) after every step of an optimiser.
    """

    name: str
    epsilon: float = 1e-3
    momentum: float = 0.01
    unbiased: bool = False
    projected: bool = False


@dataclass(frozen=True)
class RMSNorm:
    """Divide rows by the root of their mean square plus epsilon, then apply a learned scale. If `projected`, the scale
    has the norm sqrt(features) after every step of an optimiser."""

    name: str
    epsilon: float = 1e-6
    projected: bool = False


@dataclass(frozen=True)
class UnitNorm:
    """Divide rows by their L2 norm, or by epsilon if that is larger."""

    epsilon: float = 1e-8


@dataclass(frozen=True)
class Scaler:
    """Multiply features by s * initial / scale, with learned s, (features,), that starts at `scale`: the scale sets how
    far a step of an optimiser moves the factor."""

    name: str
    initial: float
    scale: float


@dataclass(frozen=True)
class Constant:
    """Append a constant to x."""

    value: float


@dataclass(frozen=True)
class ReLU:
    """Compute max(x, 0), plus a shift."""

    shift: float = 0.0


@dataclass(frozen=True)
class Bounded:
    """Compute low + (high - low) / 2 * (1 + tanh(x)), in the precision of the observation."""

    low: float
    high: float


@dataclass(frozen=True)
class Clipped:
    """Clip x to [low, high], in the precision of the observation."""

    low: float
    high: float


@dataclass(frozen=True)
class OwnTask:
    """Keep, of x with a block of `outputs` features for every task, the block of the row's task: the input `task` is
    1 there and 0 elsewhere."""

    outputs: int


@dataclass(frozen=True)
class Concat:
    """Append other inputs to x, in this order."""

    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Layers in sequence. The name of the group is the prefix of their names."""

    name: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Residual:
    """Compute x plus the output of the layers for x. The layers contain no Concat. A residual is the unit that is
    sharded."""

    name: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Interpolation:
    """Compute x + a (m - x), m the output of the layers for x. a is learned, (features,): s * initial / scale as in a
    Scaler, whose parameter has the name `interpolation`. The layers contain no Concat."""

    name: str
    layers: tuple[Layer, ...]
    initial: float
    scale: float


@dataclass(frozen=True)
class Ensemble:
    """`count` networks with the same layers and separate parameters, each named by its number. Their outputs are
    stacked: (count, rows, outputs). Behind an ensemble there is at most an OwnTask."""

    name: str
    count: int
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Heads:
    """Several named outputs of the same x. It is the last layer of a network."""

    branches: tuple[tuple[str, tuple[Layer, ...]], ...]


Layer = (
    Dense
    | Convolution
    | MaxPool
    | Flatten
    | LayerNorm
    | RunningNorm
    | BatchNorm
    | RMSNorm
    | UnitNorm
    | Scaler
    | Constant
    | ReLU
    | Bounded
    | Clipped
    | OwnTask
    | Concat
    | Group
    | Residual
    | Interpolation
    | Ensemble
    | Heads
)
Layers = tuple[Layer, ...]


@dataclass(frozen=True)
class Network:
    """Layers, and the name and shape (of one row) of every input."""

    inputs: tuple[tuple[str, Shape], ...]
    layers: Layers

    def shape(self, name: str) -> Shape:
        """Return the shape of one row of an input. Raises KeyError if the network has no such input."""
        return dict(self.inputs)[name]


@dataclass(frozen=True)
class Placed:
    """A layer that is no container, with its position in a network.

    Attributes:
        path: full name of the layer; "" if it has no name.
        before, after: shapes of one row of its input and its output.
        copies: how many members of an ensemble contain it; 1 outside ensembles.
    """

    path: str
    layer: Layer
    before: Shape
    after: Shape
    copies: int = 1


def placed(network: Network) -> list[Placed]:
    """Return every layer of a network that is no container, in order. A layer of an ensemble is listed once."""
    found: list[Placed] = []
    _place(network.layers, network.shape(OBSERVATION), network, "", 1, found)
    return found


def _place(layers: Layers, shape: Shape, network: Network, prefix: str, copies: int, found: list[Placed]) -> Shape:
    for layer in layers:
        before = shape
        match layer:
            case Group(name, inner) | Residual(name, inner) | Interpolation(name, inner):
                shape = _place(inner, before, network, f"{prefix}{name}.", copies, found)
                if isinstance(layer, (Residual, Interpolation)) and shape != before:
                    kind = type(layer).__name__.lower()
                    raise ValueError(f"{kind} {prefix}{name} makes {shape} of {before}: a sum needs the same")
                if isinstance(layer, Interpolation):
                    scaler = Scaler("interpolation", layer.initial, layer.scale)
                    found.append(Placed(f"{prefix}{name}.interpolation", scaler, shape, shape, copies))
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
    """Return the output shape, of one row, of a layer that is no container."""
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
        case Constant():
            return (before[0] + 1,)
        case OwnTask(outputs):
            return (outputs,)
        case _:
            return before


def residuals(layers: Layers, prefix: str = "") -> Iterator[tuple[str, Residual]]:
    """Yield every residual with its full name, for every member of an ensemble."""
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


def dense_ends(layers: Layers, last: bool = False, prefix: str = "") -> list[str]:
    """Return the full names of the Dense layers that come first, or last, on the way through the layers.

    There are several where they divide. Of an ensemble the first member is named.
    """
    for layer in reversed(layers) if last else layers:
        match layer:
            case Dense(name):
                return [prefix + name]
            case Group(name, inner) | Interpolation(name, inner):
                if found := dense_ends(inner, last, f"{prefix}{name}."):
                    return found
            case Ensemble(name, _, inner):
                return dense_ends(inner, last, f"{prefix}{name}.0.")
            case Heads(branches):
                return [name for _, inner in branches for name in dense_ends(inner, last, prefix)]
    return []
