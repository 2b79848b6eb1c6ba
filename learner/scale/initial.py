"""Gives networks that were made on the meta device memory and their initial values, one layer after the other.

A rank that holds a part of a network so never holds the whole: the largest whole thing is a layer. The values do not
depend on how many ranks there are: each layer has random numbers of its own.
"""

from __future__ import annotations

import zlib

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from learner.networks.parallel import local
from learner.scale.sharding import like, put


def allocate(network: nn.Module, device: torch.device | str) -> None:
    """Give all parameters and buffers of a network on the meta device memory on a device."""
    if any(isinstance(layer, FSDPModule) for layer in network.modules()):
        network.to_empty(device=device)  # FSDP follows this
        return
    for layer in network.modules():
        for key, each in layer._parameters.items():
            if each is not None:
                own = torch.empty_like(local(each), device=device)
                own = like(each, own, each.device_mesh) if isinstance(each, DTensor) else own
                layer._parameters[key] = nn.Parameter(own, each.requires_grad)
        for key, buffer in layer._buffers.items():
            layer._buffers[key] = None if buffer is None else torch.empty_like(buffer, device=device)


@torch.no_grad()
def initialise(network: nn.Module, name: str, device: torch.device | str) -> None:
    """Put a network from the meta device on a device, with the initial values that `reset_parameters` of its layers
    sets. They follow from the last seed of torch's global generator, which begins again with it, and from the names of
    network and layer."""
    allocate(network, device)
    seed = torch.initial_seed()
    for place, layer in network.named_modules():
        if all(each is None for each in (*layer._parameters.values(), *layer._buffers.values())):
            continue
        divided = {key: each for key, each in layer._parameters.items() if isinstance(each, DTensor)}
        for key, each in divided.items():
            layer._parameters[key] = nn.Parameter(torch.empty(each.shape, dtype=each.dtype, device=device))
        # A generator of the CPU uses 32 bits of a seed.
        torch.manual_seed((seed + zlib.crc32(f"{name}/{place}".encode())) % 2**32)
        layer.reset_parameters()
        for key, each in divided.items():
            whole = layer._parameters[key]
            assert whole is not None
            put(each, whole)
            layer._parameters[key] = each
    torch.manual_seed(seed)


@torch.no_grad()
def initialise_like(network: nn.Module, other: nn.Module, device: torch.device | str) -> None:
    """Put a network from the meta device on a device, with the values of another that is divided in the same way."""
    allocate(network, device)
    for ours, theirs in zip(
        (*network.parameters(), *network.buffers()), (*other.parameters(), *other.buffers()), strict=True
    ):
        local(ours).copy_(local(theirs))
