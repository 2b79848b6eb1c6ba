"""One pass over parameters for GPUs, in Triton: AdamW, the target's step, copies in bfloat16, and norms.

learner.agents.optimizers calls torch's kernels one after another for the same result. They read and write 60 bytes of
memory for each parameter, in bfloat16; this pass reads and writes 40.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def step_kernel(  # type: ignore[no-untyped-def]
    values, gradient, first, second, target, rounded, target_rounded, steps, squares, count,
    fraction, rate, decay, epsilon, polyak,
    BETA1: tl.constexpr, BETA2: tl.constexpr, LOG_BETA1: tl.constexpr, LOG_BETA2: tl.constexpr,
    FALLS: tl.constexpr, FOLLOWS: tl.constexpr, ROUNDS: tl.constexpr, ROUNDS_TARGET: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Take a step for BLOCK parameters. The grid is (blocks). `steps` counts this step too. Constants are float64 until
    they meet a number: the first steps are divided by differences from 1."""
    block = tl.program_id(0).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    made = tl.load(steps).to(tl.float64)
    correction1 = (1.0 - tl.exp(made * LOG_BETA1)).to(tl.float32)
    correction2 = tl.sqrt(1.0 - tl.exp(made * LOG_BETA2)).to(tl.float32)
    slope = tl.load(gradient + at, mask=inside, other=0.0)
    value = tl.load(values + at, mask=inside, other=0.0)
    mean = tl.load(first + at, mask=inside, other=0.0)
    square = tl.load(second + at, mask=inside, other=0.0)
    if FALLS:
        left = tl.load(fraction)
        rate *= left
        decay *= left
    value -= decay * value
    mean += (slope - mean) * (1.0 - BETA1)
    square = BETA2 * square + (1.0 - BETA2) * slope * slope
    value -= rate / correction1 * mean / (tl.sqrt(square) / correction2 + epsilon)
    tl.store(first + at, mean, mask=inside)
    tl.store(second + at, square, mask=inside)
    tl.store(values + at, value, mask=inside)
    if ROUNDS:
        tl.store(rounded + at, value.to(tl.bfloat16), mask=inside)
    if FOLLOWS:
        slow = tl.load(target + at, mask=inside, other=0.0)
        slow += polyak * (value - slow)
        tl.store(target + at, slow, mask=inside)
        if ROUNDS_TARGET:
            tl.store(target_rounded + at, slow.to(tl.bfloat16), mask=inside)
    tl.store(squares + block, tl.sum(slope * slope, axis=0))
    tl.store(squares + tl.num_programs(0) + block, tl.sum(value * value, axis=0))


def step(
    values: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    target: Tensor | None,
    rounded: Tensor | None,
    target_rounded: Tensor | None,
    steps: Tensor,
    *,
    rate: float,
    betas: tuple[float, float],
    epsilon: float,
    decay: float,
    polyak: float,
    fraction: Tensor | None = None,
) -> Tensor:
    """Take a step of AdamW, in place, with dense float32 tensors of one size and equal strides.

    Move the target, if there is one, by the fraction `polyak` towards the new values. Round both to their bfloat16
    copies, if they have any. `steps` is 0-d and counts this step too. `fraction`, 0-d, multiplies the learning rate.

    Return (2,), the sums of the squares of the gradients and of the new values.
    """
    count = values.numel()
    blocks = triton.cdiv(count, BLOCK)
    squares = torch.empty(2, blocks, dtype=torch.float32, device=values.device)
    step_kernel[(blocks,)](
        values, gradient, first, second, values if target is None else target, values if rounded is None else rounded,
        values if target_rounded is None else target_rounded, steps, squares, count,
        steps if fraction is None else fraction, rate, rate * decay, epsilon, polyak,
        betas[0], betas[1], math.log(betas[0]), math.log(betas[1]),
        fraction is not None, target is not None, rounded is not None, target_rounded is not None, BLOCK,
    )  # fmt: skip
    return squares.sum(dim=1)
