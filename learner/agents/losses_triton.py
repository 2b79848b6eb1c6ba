"""The losses of categorical critics, the policy's distribution and the reward scale for GPUs, in Triton.

Each function computes in one kernel, and its gradient in another, what categorical.py, tanh_normal.py and
reward_normalizer.py compute with some ten operations each. Tensors are float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 256  # rewards of a program


@triton.jit
def target_kernel(  # type: ignore[no-untyped-def]
    logits, atoms, rewards, discounts, costs, target, heads, rows, bins, limit,
    COSTS: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """Write the projected target of one row. The grid is (rows)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BINS)
    inside = at < bins
    mass = tl.zeros((BINS,), tl.float32)
    for head in range(heads):
        x = tl.load(logits + (head * rows + row) * bins + at, mask=inside, other=-float("inf"))
        x = tl.exp(x - tl.max(x, axis=0))
        mass += x / tl.sum(x, axis=0)
    mass = tl.where(inside, mass / heads, 0.0)
    value = tl.load(atoms + at, mask=inside, other=0.0)
    if COSTS:
        value -= tl.load(costs + row)
    value = tl.load(rewards + row) + tl.load(discounts + row) * value
    value = tl.where(value < -limit, -limit, value)  # a NaN stays
    value = tl.where(value > limit, limit, value)
    place = (value + limit) * ((bins - 1) / (2.0 * limit))
    near = 1.0 - tl.abs(place[:, None] - at[None, :].to(tl.float32))
    near = tl.where(near < 0.0, 0.0, near)
    projected = tl.sum(mass[:, None] * near, axis=0)
    tl.store(target + row * bins + at, projected, mask=inside)


@triton.jit
def cross_entropy_kernel(logits, target, losses, rows, bins, BINS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write the loss of one row of a head. The grid is (heads * rows)."""
    place = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BINS)
    inside = at < bins
    x = tl.load(logits + place * bins + at, mask=inside, other=-float("inf"))
    x -= tl.max(x, axis=0)
    x -= tl.log(tl.sum(tl.exp(x), axis=0))
    wanted = tl.load(target + place % rows * bins + at, mask=inside, other=0.0)
    tl.store(losses + place, -tl.sum(tl.where(inside, wanted * x, 0.0), axis=0))


@triton.jit
def cross_entropy_gradient_kernel(  # type: ignore[no-untyped-def]
    logits, target, slopes, gradient, head_stride, row_stride, rows, bins, BINS: tl.constexpr
):  # fmt: skip
    """Write the gradient of the logits of one row of a head. The grid is (heads * rows)."""
    place = tl.program_id(0).to(tl.int64)
    slope = tl.load(slopes + place // rows * head_stride + place % rows * row_stride)
    at = tl.arange(0, BINS)
    inside = at < bins
    x = tl.load(logits + place * bins + at, mask=inside, other=-float("inf"))
    x = tl.exp(x - tl.max(x, axis=0))
    wanted = tl.load(target + place % rows * bins + at, mask=inside, other=0.0)
    found = x / tl.sum(x, axis=0) * tl.sum(wanted, axis=0) - wanted
    tl.store(gradient + place * bins + at, found * slope, mask=inside)


@triton.jit
def expectation_kernel(logits, atoms, values, bins, BINS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write the value of one row. The grid is (rows)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BINS)
    inside = at < bins
    x = tl.load(logits + row * bins + at, mask=inside, other=-float("inf"))
    x = tl.exp(x - tl.max(x, axis=0))
    value = tl.load(atoms + at, mask=inside, other=0.0)
    tl.store(values + row, tl.sum(x * value, axis=0) / tl.sum(x, axis=0))


@triton.jit
def expectation_gradient_kernel(  # type: ignore[no-untyped-def]
    logits, atoms, values, slopes, gradient, head_stride, row_stride, rows, bins, BINS: tl.constexpr
):  # fmt: skip
    """Write the gradient of the logits of one row of a head. The grid is (heads * rows)."""
    row = tl.program_id(0).to(tl.int64)
    slope = tl.load(slopes + row // rows * head_stride + row % rows * row_stride)
    at = tl.arange(0, BINS)
    inside = at < bins
    x = tl.load(logits + row * bins + at, mask=inside, other=-float("inf"))
    x = tl.exp(x - tl.max(x, axis=0))
    apart = tl.load(atoms + at, mask=inside, other=0.0) - tl.load(values + row)
    tl.store(gradient + row * bins + at, x / tl.sum(x, axis=0) * apart * slope, mask=inside)


@triton.jit
def sample_kernel(  # type: ignore[no-untyped-def]
    mean, log_std, noise, actions, densities, size, CONSTANT: tl.constexpr, SIZE: tl.constexpr
):  # fmt: skip
    """Write the action of one row and its log-density. The grid is (rows)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, SIZE)
    inside = at < size
    own = row * size + at
    wide, drawn = tl.load(log_std + own, mask=inside, other=0.0), tl.load(noise + own, mask=inside, other=0.0)
    x = tl.load(mean + own, mask=inside, other=0.0) + tl.exp(wide) * drawn
    # 2 (ln 2 - x - softplus(-2x)) = 2 (ln 2 - |x| - ln(1 + exp(-2|x|))): no exponent is positive.
    size_of = tl.abs(x)
    small = tl.exp(-2.0 * size_of)
    squashed = (1.0 - small) / (1.0 + small)
    density = -0.5 * drawn * drawn - wide + 2.0 * (size_of + tl.log(1.0 + small)) - CONSTANT
    tl.store(actions + own, tl.where(x < 0.0, -squashed, squashed), mask=inside)
    tl.store(densities + row, tl.sum(tl.where(inside, density, 0.0), axis=0))


@triton.jit
def sample_gradient_kernel(  # type: ignore[no-untyped-def]
    actions, log_std, noise, of_actions, of_densities, of_mean, of_log_std, stride, size, SIZE: tl.constexpr
):  # fmt: skip
    """Write the gradients of mean and log_std of one row. The grid is (rows)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, SIZE)
    inside = at < size
    own = row * size + at
    action, dense = tl.load(actions + own, mask=inside, other=0.0), tl.load(of_densities + row * stride)
    slope = tl.load(of_actions + own, mask=inside, other=0.0) * (1.0 - action * action) + 2.0 * dense * action
    moved = tl.exp(tl.load(log_std + own, mask=inside, other=0.0)) * tl.load(noise + own, mask=inside, other=0.0)
    tl.store(of_mean + own, slope, mask=inside)
    tl.store(of_log_std + own, slope * moved - dense, mask=inside)


@triton.jit
def normalize_kernel(  # type: ignore[no-untyped-def]
    rewards, tasks, minimum, maximum, temperature, normalized, count, entropy_return, limit, BLOCK: tl.constexpr
):  # fmt: skip
    """Divide some rewards by the scales of their tasks."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    task = tl.load(tasks + at, mask=inside, other=0)
    least = tl.abs(tl.load(minimum + task, mask=inside, other=1.0))
    largest = tl.load(maximum + task, mask=inside, other=1.0)
    largest = tl.where(largest > least, largest, least)
    scale = (largest - tl.load(temperature) * entropy_return) / limit
    scale = tl.where(scale > 0.0, scale, float("inf"))
    tl.store(normalized + at, tl.load(rewards + at, mask=inside, other=0.0) / scale, mask=inside)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        rows, bins = target.shape
        losses = torch.empty(logits.shape[:-1], dtype=logits.dtype, device=logits.device)
        cross_entropy_kernel[(losses.numel(),)](logits, target, losses, rows, bins, triton.next_power_of_2(bins))
        ctx.save_for_backward(logits, target)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        logits, target = ctx.saved_tensors
        rows, bins = target.shape
        gradient = torch.empty_like(logits)
        cross_entropy_gradient_kernel[(logits.numel() // bins,)](
            logits, target, slopes[0], gradient, *slopes[0].stride(), rows, bins, triton.next_power_of_2(bins)
        )
        return gradient, None


class _Expectation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, atoms: Tensor) -> Tensor:
        bins = len(atoms)
        values = torch.empty(logits.shape[:-1], dtype=logits.dtype, device=logits.device)
        expectation_kernel[(values.numel(),)](logits, atoms, values, bins, triton.next_power_of_2(bins))
        ctx.save_for_backward(logits, atoms, values)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        logits, atoms, values = ctx.saved_tensors
        gradient, bins, slope = torch.empty_like(logits), len(atoms), slopes[0].reshape(len(logits), -1)
        expectation_gradient_kernel[(values.numel(),)](
            logits, atoms, values, slope, gradient, *slope.stride(), slope.shape[1], bins,
            triton.next_power_of_2(bins),
        )  # fmt: skip
        return gradient, None


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, noise: Tensor) -> Any:
        rows, size = mean.shape
        actions, densities = torch.empty_like(mean), torch.empty(rows, dtype=mean.dtype, device=mean.device)
        constant = 0.5 * math.log(2.0 * math.pi) + 2.0 * math.log(2.0)
        sample_kernel[(rows,)](mean, log_std, noise, actions, densities, size, constant, triton.next_power_of_2(size))
        ctx.save_for_backward(actions, log_std, noise)
        return actions, densities

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        actions, log_std, noise = ctx.saved_tensors
        of_mean, of_log_std = torch.empty_like(actions), torch.empty_like(actions)
        rows, size = actions.shape
        of_actions, of_densities = gradients
        sample_gradient_kernel[(rows,)](
            actions, log_std, noise, of_actions.contiguous(), of_densities, of_mean, of_log_std, of_densities.stride(0),
            size, triton.next_power_of_2(size),
        )  # fmt: skip
        return of_mean, of_log_std, None


def target(
    logits: Tensor, atoms: Tensor, rewards: Tensor, discounts: Tensor, costs: Tensor | None, limit: float
) -> Tensor:
    """Return what `losses.Categorical.target` returns, for at most `categorical.MOST_BINS` bins."""
    heads, rows, bins = logits.shape
    found = torch.empty(rows, bins, dtype=logits.dtype, device=logits.device)
    target_kernel[(rows,)](
        logits.contiguous(), atoms, rewards.contiguous(), discounts.contiguous(),
        rewards if costs is None else costs.contiguous(), found, heads, rows, bins, limit,
        costs is not None, triton.next_power_of_2(bins), num_warps=8,
    )  # fmt: skip
    return found


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return what `categorical.cross_entropy` returns, for logits (heads, rows, bins) and a target (rows, bins)."""
    found: Tensor = _CrossEntropy.apply(logits.contiguous(), target.contiguous())  # type: ignore[no-untyped-call]
    return found


def expectation(logits: Tensor, atoms: Tensor) -> Tensor:
    """Return what `categorical.expectation` returns."""
    found: Tensor = _Expectation.apply(logits.contiguous(), atoms)  # type: ignore[no-untyped-call]
    return found


def sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `tanh_normal.sample` returns."""
    found: tuple[Tensor, Tensor] = _Sample.apply(  # type: ignore[no-untyped-call]
        mean.contiguous(), log_std.contiguous(), noise.contiguous()
    )
    return found


def normalize(
    rewards: Tensor,
    tasks: Tensor,
    minimum: Tensor,
    maximum: Tensor,
    temperature: Tensor,
    entropy_return: float,
    limit: float,
) -> Tensor:
    """Return what `RewardNormalizer.normalize` returns."""
    rewards, found = rewards.contiguous(), torch.empty_like(rewards, memory_format=torch.contiguous_format)
    normalize_kernel[(triton.cdiv(rewards.numel(), BLOCK),)](
        rewards, tasks.contiguous(), minimum, maximum, temperature, found, rewards.numel(), entropy_return, limit, BLOCK
    )
    return found
