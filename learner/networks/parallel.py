"""What ranks exchange when each computes some columns of dense layers, some members of an ensemble, or some rows of a
batch whose statistics are those of all.

All ranks have the same inputs and the same gradients of outputs, and end with the same outputs and gradients of inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

# torch 2.13 renamed it.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


@dataclass(frozen=True)
class Parts:
    """Ranks that each hold a part, the parts in the order of the ranks.

    Attributes:
        index: the part of this rank, from 0.
        count: number of parts.
    """

    group: Any  # the process group of these ranks
    index: int
    count: int

    def own(self, whole: Tensor, dim: int) -> Tensor:
        """Return this rank's part of a tensor, as a view. `count` must divide its size in that dimension."""
        size = whole.shape[dim] // self.count
        return whole.narrow(dim, self.index * size, size)

    def gather(self, part: Tensor, dim: int) -> Tensor:
        """Return the parts of all ranks, concatenated in this dimension."""
        if self.count == 1:
            return part
        found = part.new_empty(self.count, *part.shape)
        all_gather(found.flatten(0, 1), part.contiguous(), self.group)
        return found.movedim(0, dim).flatten(dim, dim + 1)

    def add(self, summand: Tensor) -> Tensor:
        """Return the sum of the tensors of all ranks, in the memory of this one if that is contiguous."""
        if self.count == 1:
            return summand
        found = summand.contiguous()
        dist.all_reduce(found, group=self.group)
        return found


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: Parts) -> Tensor:
        ctx.parts = parts
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.parts.add(gradients[0].clone()), None


class _Collected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, parts: Parts) -> Tensor:
        ctx.parts = parts
        found: Tensor = parts.gather(part, 0)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.parts.own(gradients[0], 0), None


def spread(x: Tensor, parts: Parts) -> Tensor:
    """Return x. Its gradient is the sum of the gradients of all ranks, which compute different functions of x."""
    found: Tensor = _Spread.apply(x, parts)  # type: ignore[no-untyped-call]
    return found


def collected(part: Tensor, parts: Parts) -> Tensor:
    """Return the parts (n, ...) of all ranks as (count * n, ...). All ranks must compute the same function of that."""
    found: Tensor = _Collected.apply(part, parts)  # type: ignore[no-untyped-call]
    return found


class _OverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, count: int) -> Tensor:
        ctx.count = count
        found = own.clone()
        dist.all_reduce(found)
        return found.div_(count)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        found = gradients[0].clone()
        dist.all_reduce(found)
        return found.div_(ctx.count), None


def over_ranks(own: Tensor, count: int) -> Tensor:
    """Return the mean of the tensors of `count` ranks. Every rank computes a part of the loss from it, whose gradients
    are averaged over ranks."""
    found: Tensor = _OverRanks.apply(own, count)  # type: ignore[no-untyped-call]
    return found


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor that is divided over ranks, in the same memory. Return others themselves."""
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor
