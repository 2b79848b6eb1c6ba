"""Counts of a network's parameters, buffers and operations, computed from its description."""

from __future__ import annotations

import math

from learner.networks.description import (
    Convolution,
    Dense,
    LayerNorm,
    Network,
    Placed,
    RunningNorm,
    placed,
)


def parameters_of(place: Placed) -> int:
    """Return the number of learned parameters of one copy of a layer."""
    match place.layer:
        case Dense(_, outputs):
            return (math.prod(place.before) + 1) * outputs
        case Convolution(_, channels):
            return (9 * place.before[0] + 1) * channels
        case LayerNorm():
            return 2 * place.before[-1]
        case _:
            return 0


def buffers_of(place: Placed) -> int:
    """Return the number of buffer elements of one copy of a layer."""
    return 2 * math.prod(place.before) + 1 if isinstance(place.layer, RunningNorm) else 0


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
