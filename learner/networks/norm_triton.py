"""The kernels of learner.networks.norm for GPUs, in Triton. They compute what norm.c computes for CPUs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS = 128  # that share the rows of a member in the backward pass, at most


@triton.jit
def forward_kernel(  # type: ignore[no-untyped-def]
    x, shift, weight, bias, skip, y, rounded, statistics, rows, width, epsilon,
    RELU: tl.constexpr, SKIP: tl.constexpr, WHOLE: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Normalise one row of a member. The grid is (members * rows)."""
    row = tl.program_id(0).to(tl.int64)
    member, count = row // rows, tl.num_programs(0)
    at = tl.arange(0, BLOCK)
    inside = at < width
    own, shared = row * width + at, member * width + at
    value = tl.load(x + own, mask=inside, other=0.0).to(tl.float32) + tl.load(shift + shared, mask=inside, other=0.0)
    mean = tl.sum(value, axis=0) / width
    centred = tl.where(inside, value - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / width + epsilon)
    value = centred * scale * tl.load(weight + shared, mask=inside, other=0.0)
    value += tl.load(bias + shared, mask=inside, other=0.0)
    if RELU:
        value = tl.where(value < 0.0, 0.0, value)  # a NaN stays
    if SKIP:
        value += tl.load(skip + own, mask=inside, other=0.0)
    if WHOLE:
        tl.store(y + own, value, mask=inside)
    if HALF:
        tl.store(rounded + own, value.to(tl.bfloat16), mask=inside)
    tl.store(statistics + row, mean)
    tl.store(statistics + count + row, scale)


@triton.jit
def backward_kernel(  # type: ignore[no-untyped-def]
    gradient, y, x, shift, weight, statistics, into, partial, members, rows, width,
    RELU: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of every `programs`-th row of a member, and of the parameters from these rows. The grid is
    (members, programs)."""
    member, program, programs = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    at = tl.arange(0, BLOCK)
    inside = at < width
    shared = member * width + at
    factor = tl.load(weight + shared, mask=inside, other=0.0)
    added = tl.load(shift + shared, mask=inside, other=0.0)
    shifts = tl.zeros((BLOCK,), tl.float32)
    weights = tl.zeros((BLOCK,), tl.float32)
    biases = tl.zeros((BLOCK,), tl.float32)
    for each in range(program, rows, programs):
        row = member * rows + each
        own = row * width + at
        mean, scale = tl.load(statistics + row), tl.load(statistics + members * rows + row)
        slope = tl.load(gradient + own, mask=inside, other=0.0).to(tl.float32)
        if RELU:
            slope = tl.where(tl.load(y + own, mask=inside, other=0.0).to(tl.float32) <= 0.0, 0.0, slope)
        normal = (tl.load(x + own, mask=inside, other=0.0).to(tl.float32) + added - mean) * scale
        normal = tl.where(inside, normal, 0.0)
        weights += slope * normal
        biases += slope
        slope *= factor
        level, along = tl.sum(slope, axis=0) / width, tl.sum(slope * normal, axis=0) / width
        slope = tl.where(inside, (slope - level - normal * along) * scale, 0.0)
        shifts += slope
        tl.store(into + own, slope.to(tl.bfloat16) if HALF else slope, mask=inside)
    first = (program * 3 * members + member) * width + at
    tl.store(partial + first, shifts, mask=inside)
    tl.store(partial + first + members * width, weights, mask=inside)
    tl.store(partial + first + 2 * members * width, biases, mask=inside)


def forward(
    x: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor,
    epsilon: float,
    relu: bool,
    skip: Tensor | None,
    y: Tensor | None,
    rounded: Tensor | None,
    statistics: Tensor,
) -> None:
    """Write the statistics, and the result of `norm.forward` to y and, in bfloat16, to `rounded`, if they are given."""
    members, rows, width = x.shape
    block = triton.next_power_of_2(width)
    forward_kernel[(members * rows,)](
        x, shift, weight, bias, x if skip is None else skip, x if y is None else y, x if rounded is None else rounded,
        statistics, rows, width, epsilon, relu, skip is not None, y is not None, rounded is not None, block,
        num_warps=warps(block),
    )  # fmt: skip


def backward(
    gradient: Tensor,
    y: Tensor | None,
    x: Tensor,
    shift: Tensor,
    weight: Tensor,
    statistics: Tensor,
    into: Tensor,
    sums: Tensor,
) -> None:
    """Write the gradient of x to `into`, and to `sums` what `norm.backward` writes there."""
    members, rows, width = x.shape
    programs = min(rows, PROGRAMS)
    partial = torch.empty(programs, *sums.shape, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(width)
    backward_kernel[(members, programs)](
        gradient, x if y is None else y, x, shift, weight, statistics, into, partial, members, rows, width,
        y is not None, x.dtype is torch.bfloat16, block, num_warps=warps(block),
    )  # fmt: skip
    torch.sum(partial, dim=0, out=sums)


def warps(block: int) -> int:
    """Return the number of warps for rows of this size: some 16 numbers a thread, so that they stay in registers."""
    return max(1, min(16, block // 512))
