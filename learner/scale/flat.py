"""Puts the parameters of a network into one buffer, so that one call of a kernel can serve many."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from learner.networks.chain import Chain
from learner.networks.parallel import local
from learner.networks.torch_network import Members, chains


@dataclass(frozen=True)
class Flat:
    """The parameters of a network.

    Attributes:
        leaves: the tensors that get gradients: one for each chain, and every parameter outside of chains. Where FSDP
            shards a network, every parameter.
        pieces: the tensors that hold all values in this process. Networks of equal shapes have pieces of equal shapes.
        buffer: the piece that holds all parameters which FSDP does not manage; None if there are none.
        divided: the leaves that hold another part of the network on each rank of a copy (learner.scale.sharding).
    """

    leaves: list[Tensor]
    pieces: list[Tensor]
    buffer: Tensor | None
    chains: list[Chain]  # those that have a leaf
    divided: list[Tensor]

    def holds(self, parameter: Tensor) -> bool:
        """Whether a parameter, or this rank's part of it, is in the buffer."""
        return self.buffer is not None and same_memory(local(parameter), self.buffer)

    def same_place(self, buffer: Tensor, parameter: Tensor) -> Tensor:
        """Return the view of another buffer, of the same size, at the place that a parameter has in this one."""
        assert self.buffer is not None
        own = local(parameter)
        place = own.storage_offset() - self.buffer.storage_offset()
        return buffer.as_strided(own.shape, own.stride(), buffer.storage_offset() + place)


@torch.no_grad()
def flatten(module: nn.Module) -> Flat:
    """Move the parameters of a network, of one dtype and device, into one buffer, where they stay. Their values, shapes
    and strides do not change. Those that FSDP shards stay where they are: it manages their memory."""
    parameters = list(module.parameters())
    managed = any(isinstance(part, FSDPModule) for part in module.modules())
    sharded = [parameter for parameter in parameters if managed and isinstance(parameter, DTensor)]
    whole = [parameter for parameter in parameters if not (managed and isinstance(parameter, DTensor))]
    pieces = [local(parameter.detach()) for parameter in sharded]
    if not whole:
        return Flat(list(parameters), pieces, None, [], [])
    members = [part for part in module.modules() if isinstance(part, Members) and part.parts is not None]
    apart = {id(parameter) for part in members for parameter in part.parameters()}
    buffer = torch.empty(sum(local(p).numel() for p in whole), dtype=whole[0].dtype, device=whole[0].device)
    leaves: list[Tensor] = [*sharded]
    divided: list[Tensor] = []
    flat: list[Chain] = []
    place = 0
    inside: set[int] = set()
    for chain in chains(module) if not sharded else ():
        held = [parameter for same in chain.parameters() for parameter in same]
        if not held:
            continue
        leaf = buffer[place : place + sum(local(parameter).numel() for parameter in held)].detach()
        inside |= {id(parameter) for parameter in held}
        chain.flatten(leaf)
        flat.append(chain)
        leaves.append(leaf.requires_grad_(held[0].requires_grad))
        divided += [leaf] if id(held[0]) in apart else []
        place += leaf.numel()
    for parameter in whole:
        if id(parameter) not in inside:
            part = buffer[place : place + parameter.numel()].as_strided(
                parameter.shape, parameter.stride(), buffer.storage_offset() + place
            )
            part.copy_(parameter)
            parameter.data = part
            leaves.append(parameter)
            divided += [parameter] if id(parameter) in apart else []
            place += parameter.numel()
    return Flat(leaves, [buffer, *pieces], buffer, flat, divided)


def same_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are views of one storage."""
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)
