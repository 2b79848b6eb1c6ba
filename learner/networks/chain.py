"""Runs the flat layers of a network, forward and backward, as one step for autograd.

A chain holds Dense, LayerNorm, ReLU and Residual layers in sequence. Autograd sees a single step, so its work for every
operation is done once for the chain, and a LayerNorm is computed together with the bias before it and the ReLU or the
sum behind it (learner.networks.norm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from learner.networks import norm
from learner.networks.description import Dense, Layer, LayerNorm, ReLU, Residual
from learner.networks.layers import Products, as_factor, as_result
from learner.networks.parallel import Parts, local


@dataclass(frozen=True)
class Operation:
    """An operation of a chain.

    Attributes:
        kind: `begin` and `end` enclose the layers of a residual: the end adds what was there at the beginning.
        module: the module of a dense or norm, with a weight and a bias.
        then: what a norm does to its result.
        shifts: whether this norm adds the bias of the dense before it, or this dense leaves its bias to the norm.
        joins: whether this dense adds the gradient of the residual that begins before it, or this beginning leaves that
            to the dense.
        columns: the ranks over which the outputs of this dense are divided; None if this rank computes all.
    """

    kind: Literal["dense", "norm", "relu", "begin", "end"]
    module: Any = None
    then: Literal["", "relu", "add"] = ""
    shifts: bool = False
    joins: bool = False
    columns: Parts | None = None


def operations(layer: Layer, module: Any, split: bool) -> list[Operation] | None:
    """Return the operations of a layer; None if a chain cannot hold it. With `split` it cannot hold a residual."""
    match layer:
        case Dense(bias=True):
            return [Operation("dense", module, columns=module.columns)]
        case LayerNorm():
            return [Operation("norm", module)]
        case ReLU(0.0):
            return [Operation("relu")]
        case Residual() if not split:
            inner = [operations(one, made, split) for one, made in module.steps]
            if all(each is not None for each in inner):
                return [Operation("begin"), *(one for each in inner for one in each or []), Operation("end")]
    return None


def fused(found: Sequence[Operation]) -> list[Operation]:
    """Return the operations, with what one kernel can do folded into one operation."""
    result: list[Operation] = []
    for operation in found:
        last = result[-1] if result else None
        if last is not None and last.kind == "begin" and operation.kind == "dense":
            result[-1], operation = replace(last, joins=True), replace(operation, joins=True)
        if last is not None and last.kind == "dense" and operation.kind == "norm":
            result[-1], operation = replace(last, shifts=True), replace(operation, shifts=True)
        if last is not None and last.kind == "norm" and not last.then and operation.kind in ("relu", "end"):
            result[-1] = replace(last, then="relu" if operation.kind == "relu" else "add")
        else:
            result.append(operation)
    return result


class Chain:
    """Several chains of the same operations, with parameters of their own, that run on the same input: the members of
    an ensemble, or one alone. The members are computed together: all tensors have a first dimension of H members.

    Attributes:
        products: precision of the products of matrices. `rounded` computes in full precision what `bfloat16` would.
        leaf: after `flatten`, all parameters as one tensor. It is the one that gets a gradient.
        rounded: after `flatten`, the leaf in the precision of the products, unless that is exact. Whoever changes
            parameters, also by `load_state_dict`, calls `refresh` afterwards.
    """

    def __init__(self, members: Sequence[Sequence[Operation]]) -> None:
        self.members = [list(member) for member in members]
        self.operations = fused(members[0])
        # Of each operation with parameters, the modules of all members.
        self.modules = [
            [operation.module for operation in same]
            for same in zip(*members, strict=True)
            if same[0].module is not None
        ]
        self.products: Products = "exact"
        self.leaf: Tensor | None = None
        self.rounded: Tensor | None = None
        self.shapes: list[tuple[int, ...]] = []  # of the views
        self.views: list[Tensor] = []  # of the leaf; where there is a rounded one, of that for the weights of products
        self.slot_shapes: list[tuple[int, ...]] = []
        self.slot_sizes: list[int] = []

    def parameters(self) -> list[list[nn.Parameter]]:
        """Return the weight and the bias of each operation that has them, of all members, in order."""
        return [[module._parameters[name] for module in same] for same in self.modules for name in ("weight", "bias")]

    def repeated(self, values: Tensor) -> list[Tensor]:
        """Return views of what the ranks that divide columns all hold, in a tensor of the leaf's shape: all but the
        weights of products whose columns are divided."""
        parameters = self.parameters()
        parts = values.split([sum(local(parameter).numel() for parameter in same) for same in parameters])
        return [part for part, same in zip(parts, parameters, strict=True) if not isinstance(same[0], DTensor)]

    @torch.no_grad()
    def flatten(self, leaf: Tensor) -> None:
        """Move all parameters to a tensor that has room for them, where they stay."""
        self.leaf, values = leaf, leaf.detach()
        if self.products != "exact":
            self.rounded = torch.empty_like(values, dtype=torch.bfloat16 if self.products == "bfloat16" else None)
        self.views, place = [], 0
        for same in self.parameters():
            shape = (len(same), *local(same[0]).shape)
            here = slice(place, place + math.prod(shape))
            view = values[here].view(shape)
            for parameter, part in zip(same, view, strict=True):
                move(parameter, part)
            rounded = self.rounded if len(shape) == 3 else None  # not of biases and norms
            self.views.append(view if rounded is None else rounded[here].view(shape))
            place += view.numel()
        self.shapes = [tuple(view.shape) for view in self.views]
        self.refresh()

    def refresh(self) -> None:
        """Round the leaf again."""
        if self.rounded is not None and self.leaf is not None:
            values = self.leaf.detach()
            self.rounded.copy_(values if self.products == "bfloat16" else values.bfloat16())

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs for x (..., inputs), in its dtype: (H, ..., outputs), or (..., outputs) for one alone.

        Raises RuntimeError if a flattened network has been converted since: its modules have other parameters than its
        leaf then.
        """
        if self.leaf is None:
            leaves: list[Tensor] = [parameter for same in self.parameters() for parameter in same]
        elif local(self.modules[0][0].weight).untyped_storage()._cdata == self.leaf.untyped_storage()._cdata:
            leaves = [self.leaf]
        else:
            raise RuntimeError("a network was converted after its optimiser was made: convert it before")
        rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        if torch.is_grad_enabled():
            found: Tensor = Run.apply(self, rows, *leaves)  # type: ignore[no-untyped-call]
        else:
            found = self.shaped(
                self.forward(rows.expand(len(self.members), *rows.shape), self.stacked(leaves, x.dtype), [])
            )
        return found if x.dim() == 2 else found.view(*found.shape[:-2], *x.shape[:-1], found.shape[-1])

    def shaped(self, y: Tensor) -> Tensor:
        """Return outputs (H, B, outputs) as (B, outputs) if there is one member. It is no view for autograd: FSDP warns
        of views, which may be changed in place."""
        found: Tensor = torch.ops.aten._unsafe_view(y, y.shape[1:]) if len(self.members) == 1 else y
        return found

    def stacked(self, leaves: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Return the weight and the bias of each operation that has them, (H, ...), in order. All but the weights of
        products are of this dtype."""
        if self.views:
            return self.views
        count = len(self.members)
        found = [together(leaves[first : first + count]) for first in range(0, len(leaves), count)]
        # FSDP may have gathered them in bfloat16.
        return [each if each.dim() == 3 else each.to(dtype) for each in found]

    def forward(self, x: Tensor, stacked: Sequence[Tensor], kept: list[Tensor]) -> Tensor:
        """Return the outputs for x (H, B, inputs) and parameters as `stacked` returns them. Append to `kept` what
        `backward` needs."""
        parameters, dtype = iter(stacked), x.dtype
        begun: list[Tensor] = []
        factor: Tensor | None = None  # x in the precision of products, if it is at hand; x may be that itself
        shift: Tensor | None = None  # a bias that is still to be added
        for index, operation in enumerate(self.operations):
            kind = operation.kind
            if kind == "dense":
                weight, bias = next(parameters), next(parameters)
                weight = weight if self.rounded is not None else as_factor(weight, self.products)
                factor = as_factor(x, self.products) if factor is None else factor
                kept += (factor, weight)
                x, factor = as_result(torch.bmm(factor, weight.mT), self.products), None
                x = x if operation.columns is None else operation.columns.gather(x, 2)
                if operation.shifts:
                    shift = bias
                else:
                    x = x.add_(bias.unsqueeze(1)) if x.dtype is dtype else bias.unsqueeze(1) + x
            elif kind == "norm":
                weight, bias = next(parameters), next(parameters)
                shift = torch.zeros_like(bias) if shift is None else shift
                skip = begun.pop() if operation.then == "add" else None
                relu = operation.then == "relu"
                whole = index + 1 == len(self.operations) or self.operations[index + 1].kind != "dense"
                x, factor, used = norm.forward(x, shift, weight, bias, operation.module.eps, relu, skip, whole)
                kept += (*used, x if factor is None else factor) if relu else used
                shift = None
            elif kind == "relu":
                x, factor = torch.relu(x), None
                kept.append(x)
            elif kind == "begin":
                begun.append(x)
            else:
                x, factor = x + begun.pop(), None
        return x.to(dtype)

    def backward(self, gradient: Tensor, kept: list[Tensor], slots: list[Tensor], into: bool) -> Tensor | None:
        """Return the gradient of the input, for each member, or None if it is not needed (`into`).

        Write the gradients of the parameters to `slots`, which are made by `slots`; empty if they are not needed. Both
        lists are used up.
        """
        ended: list[Tensor] = []
        wanted, dtype = bool(slots), gradient.dtype
        for index in reversed(range(len(self.operations))):
            operation = self.operations[index]
            kind = operation.kind
            if kind == "dense":
                weight, factor = kept.pop(), kept.pop()
                if wanted and not operation.shifts:
                    slot = slots.pop()
                    torch.sum(gradient, dim=1, dtype=slot.dtype, out=slot)
                rounded = as_factor(gradient, self.products)
                rounded = rounded if operation.columns is None else operation.columns.own(rounded, 2)
                if wanted and self.products == "exact":
                    torch.bmm(rounded.mT, factor, out=slots.pop())
                elif wanted and self.products == "bfloat16" and not gradient.is_cpu:
                    # A GPU sums in float32 and need not round the sums. CPUs have no such product.
                    torch.bmm(rounded.mT, factor, out_dtype=torch.float32, out=slots.pop())
                elif wanted:
                    slots.pop().copy_(as_result(torch.bmm(rounded.mT, factor), self.products))
                if index == 0 and not into:
                    return None
                if operation.joins and self.products == "exact" and operation.columns is None:
                    gradient = torch.baddbmm(ended.pop(), rounded, weight)
                else:
                    gradient = as_result(torch.bmm(rounded, weight), self.products)
                    gradient = gradient if operation.columns is None else operation.columns.add(gradient)
                    gradient = ended.pop() + gradient if operation.joins else gradient
            elif kind == "norm":
                y = kept.pop() if operation.then == "relu" else None
                used = norm.Kept(*kept[-4:])
                del kept[-4:]
                if operation.then == "add":
                    ended.append(gradient.to(dtype))  # sums are not rounded
                sums = slots.pop() if wanted and operation.shifts else used.weight.new_empty(3, *used.weight.shape)
                gradient = norm.backward(gradient, y, used, sums)
                if wanted and not operation.shifts:
                    slots.pop().copy_(sums[1:])
            elif kind == "relu":
                y = kept.pop()
                gradient = torch.ops.aten.threshold_backward(gradient.to(y.dtype), y, 0)
            elif kind == "begin":
                gradient = gradient if operation.joins else ended.pop() + gradient
            else:
                gradient = gradient.to(dtype)
                ended.append(gradient)
        return gradient

    def slots(self, gradients: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Return views of the gradients of all parameters, which have these shapes and lie one behind the other: of a
        dense that of its weight, of a norm (2, H, n) for weight and bias, or (3, H, n) with the bias before it."""
        if not self.slot_shapes:
            rest = iter(shapes)
            for operation in self.operations:
                if operation.kind == "dense":
                    weight, bias = next(rest), next(rest)
                    self.slot_shapes += [weight] if operation.shifts else [weight, bias]
                elif operation.kind == "norm":
                    self.slot_shapes.append((3 if operation.shifts else 2, *next(rest)))
                    next(rest)
            self.slot_sizes = [math.prod(shape) for shape in self.slot_shapes]
        parts = gradients.split(self.slot_sizes)
        return [part.view(shape) for part, shape in zip(parts, self.slot_shapes, strict=True)]


class Run(torch.autograd.Function):
    """A Chain, as a function of its input and of its leaf or, where it has none, of the parameters of all members."""

    @staticmethod
    def forward(ctx: Any, chain: Chain, x: Tensor, *leaves: Tensor) -> Tensor:
        kept: list[Tensor] = []
        stacked = chain.stacked(leaves, x.dtype)
        y = chain.forward(x.expand(len(chain.members), *x.shape), stacked, kept)
        ctx.chain, ctx.dtype = chain, x.dtype
        ctx.shapes = chain.shapes or [tuple(each.shape) for each in stacked]
        ctx.save_for_backward(*kept)
        return chain.shaped(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        chain: Chain = ctx.chain
        gradient = gradient.unsqueeze(0) if len(chain.members) == 1 else gradient
        into, *needed = ctx.needs_input_grad[1:]
        found: Tensor | None = None
        if any(needed):
            count = sum(map(math.prod, ctx.shapes)) if chain.leaf is None else chain.leaf.numel()
            found = gradient.new_empty(count)
        slots = [] if found is None else chain.slots(found, ctx.shapes)
        each = chain.backward(gradient, list(ctx.saved_tensors), slots, into)
        whole: Tensor | None = None
        if each is not None:
            whole = each.squeeze(0).to(ctx.dtype) if len(each) == 1 else each.sum(dim=0, dtype=ctx.dtype)
        if found is None:
            return None, whole, *[None] * len(needed)
        if chain.leaf is not None:
            return None, whole, found
        parts = found.split([math.prod(shape) for shape in ctx.shapes])
        of_members = (part.view(shape).unbind() for part, shape in zip(parts, ctx.shapes, strict=True))
        return None, whole, *(part for same in of_members for part in same)


def move(parameter: nn.Parameter, memory: Tensor) -> None:
    """Move a parameter, or this rank's part of it, to other memory of the same shape."""
    memory.copy_(local(parameter))
    if isinstance(parameter, DTensor):
        parameter._local_tensor = memory
    else:
        parameter.data = memory


def together(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors of one shape, stacked; a view if there is one."""
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(list(parts))
