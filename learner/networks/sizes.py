"""Counts of a network's parameters, buffers and operations, computed from its description."""

from __future__ import annotations

import math

from learner.networks.description import (
    BatchNorm,
    Convolution,
    Dense,
    LayerNorm,
    Network,
    Placed,
    ReLU,
    RMSNorm,
    RunningNorm,
    Scaler,
    UnitNorm,
    placed,
    residuals,
)


def parameters_of(place: Placed) -> int:
    """Return the number of learned parameters of one copy of a layer."""
    match place.layer:
        case Dense(_, outputs, bias=bias):
            return (math.prod(place.before) + bias) * outputs
        case Convolution(_, channels):
            return (9 * place.before[0] + 1) * channels
        case LayerNorm() | BatchNorm():
            return 2 * place.before[-1]
        case RMSNorm() | Scaler():
            return place.before[-1]
        case _:
            return 0


def buffers_of(place: Placed) -> int:
    """Return the number of buffer elements of one copy of a layer."""
    match place.layer:
        case RunningNorm():
            return 3 * math.prod(place.before)
        case BatchNorm():
            return 2 * place.before[-1]
        case _:
            return 0


def parameters(network: Network) -> int:
    """Return the number of learned parameters of a network."""
    return sum(place.copies * parameters_of(place) for place in placed(network))


def operations(network: Network) -> int:
    """Return the floating-point operations of the products in the forward pass of one row. The backward pass takes
    twice as many."""
    found = 0
    for place in placed(network):
        match place.layer:
            case Dense(_, outputs):
                found += place.copies * 2 * math.prod(place.before) * outputs
            case Convolution(_, channels):
                found += place.copies * 2 * 9 * place.before[0] * channels * math.prod(place.after[1:])
            case _:
                pass
    return found


def activations(network: Network) -> int:
    """Return how many numbers the flat layers keep of one row for the backward pass: the output of each hidden Dense,
    and that of each ReLU or, where no ReLU follows, LayerNorm, and those of other norms."""
    found, places = 0, placed(network)
    for place, following in zip(places, [*places[1:], None], strict=True):
        behind = None if following is None else following.layer
        if len(place.before) > 1:
            continue
        match place.layer:
            case ReLU():
                kept = True
            case LayerNorm():
                kept = not isinstance(behind, ReLU)
            case Dense():
                kept = isinstance(behind, (LayerNorm, BatchNorm, Scaler, ReLU))
            case BatchNorm() | RMSNorm() | Scaler() | UnitNorm():
                kept = True
            case _:
                kept = False
        found += place.copies * place.after[0] * kept
    return found


def largest_residual(network: Network) -> int:
    """Return the number of parameters of the largest residual, of one member of an ensemble; 0 without any."""
    places = placed(network)
    sizes = [
        sum(parameters_of(place) for place in places if place.path.startswith(f"{name}."))
        for name, _ in residuals(network.layers)
    ]
    return max(sizes, default=0)
