"""Puts the parameters of a network into one buffer, so that one call of a kernel can serve many."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from learner.networks.chain import Chain
from learner.networks.torch_network import chains


@dataclass(frozen=True)
class Flat:
    """The parameters of a network.

    Attributes:
        leaves: the tensors that get gradients: one for each chain, and every parameter outside of chains. Where FSDP
            shards a network, every parameter.
        pieces: the tensors that hold all values in this process. Networks of equal shapes have pieces of equal shapes.
        buffer: the piece that holds all parameters which FSDP does not manage; None if there are none.
    """

    leaves: list[Tensor]
    pieces: list[Tensor]
    buffer: Tensor | None
    chains: list[Chain]  # those that have a leaf

    def same_place(self, buffer: Tensor, parameter: Tensor) -> Tensor:
        """Return the view of another buffer, of the same size, at the place that a parameter has in this one."""
        assert self.buffer is not None
        place = parameter.storage_offset() - self.buffer.storage_offset()
        return buffer.as_strided(parameter.shape, parameter.stride(), buffer.storage_offset() + place)


@torch.no_grad()
def flatten(module: nn.Module) -> Flat:
    """Move the parameters of a network, of one dtype and device, into one buffer, where they stay. Their values, shapes
    and strides do not change. Those that FSDP shards stay where they are: it manages their memory."""
    parameters = list(module.parameters())
    sharded = [parameter for parameter in parameters if isinstance(parameter, DTensor)]
    whole = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
    pieces = local([parameter.detach() for parameter in sharded])
    if not whole:
        return Flat(list(parameters), pieces, None, [])
    buffer = torch.empty(sum(p.numel() for p in whole), dtype=whole[0].dtype, device=whole[0].device)
    leaves: list[Tensor] = [*sharded]
    flat: list[Chain] = []
    place = 0
    inside: set[int] = set()
    for chain in chains(module) if not sharded else ():
        held = [parameter for same in chain.parameters() for parameter in same]
        if not held:
            continue
        leaf = buffer[place : place + sum(parameter.numel() for parameter in held)].detach()
        chain.flatten(leaf)
        flat.append(chain)
        leaves.append(leaf.requires_grad_(held[0].requires_grad))
        inside |= {id(parameter) for parameter in held}
        place += leaf.numel()
    for parameter in whole:
        if id(parameter) not in inside:
            part = buffer[place : place + parameter.numel()].as_strided(
                parameter.shape, parameter.stride(), buffer.storage_offset() + place
            )
            part.copy_(parameter)
            parameter.data = part
            leaves.append(parameter)
            place += parameter.numel()
    return Flat(leaves, [buffer, *pieces], buffer, flat)


def local(tensors: list[Tensor]) -> list[Tensor]:
    """Return this rank's part of each sharded tensor, in the same memory, and each whole tensor itself."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
