"""LayerNorm with the bias before it and the ReLU or the sum behind it, forward and backward.

norm.c has kernels for CPUs, and norm_triton.py for GPUs. Elsewhere, and where they are missing, torch's own operations
do the same.
"""

from __future__ import annotations

import ctypes
import importlib.util
from typing import NamedTuple

import torch
from torch import Tensor

from learner.networks import triton_switch

FLOAT32 = ctypes.sizeof(ctypes.c_float)


class Forward(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("members", "rows", "width")),
        *(
            (name, ctypes.c_void_p)
            for name in ("x", "shift", "weight", "bias", "skip", "y", "rounded", "mean", "scale")
        ),
        ("epsilon", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("relu", "half")),
    ]


class Backward(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("members", "rows", "width")),
        *((name, ctypes.c_void_p) for name in ("gradient", "y", "x", "shift", "weight", "mean", "scale")),
        *((name, ctypes.c_void_p) for name in ("into", "sums", "scratch")),
        *((name, ctypes.c_int32) for name in ("half_gradient", "half")),
    ]


def load_kernel() -> ctypes.CDLL | None:
    """Return the compiled norm.c; None if it is missing or cannot be loaded."""
    found = importlib.util.find_spec("learner.networks._norm")
    if found is None or found.origin is None:
        return None
    try:
        kernel = ctypes.CDLL(found.origin)
        kernel.brc_norm_layout.restype = ctypes.c_int64
        if kernel.brc_norm_layout() != 1000 * ctypes.sizeof(Forward) + ctypes.sizeof(Backward):
            return None  # compiled from another version
    except (OSError, AttributeError):  # compiled on another machine, or from another version
        return None
    kernel.brc_norm_parts.argtypes = (ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    kernel.brc_norm_parts.restype = ctypes.c_int64
    kernel.brc_norm_forward.argtypes = (ctypes.c_void_p,)
    kernel.brc_norm_forward.restype = None
    kernel.brc_norm_backward.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    kernel.brc_norm_backward.restype = None
    return kernel


KERNEL = load_kernel()


class Kept(NamedTuple):
    """What the backward pass needs.

    Attributes:
        x: the input as given.
        statistics: (2, H, B, 1) float32, of each row its mean, and 1 / sqrt(variance + epsilon).
    """

    x: Tensor
    shift: Tensor
    weight: Tensor
    statistics: Tensor


def forward(
    x: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor,
    epsilon: float,
    relu: bool,
    skip: Tensor | None,
    whole: bool = True,
) -> tuple[Tensor, Tensor | None, Kept]:
    """Return LN(x + shift) * weight + bias of x (H, B, n), then with negatives set to 0 (`relu`) or `skip` added.

    H are the members of an ensemble. `skip` has the shape of x. `shift`, `weight` and `bias` are (H, n), contiguous.
    All tensors are on one device and of one dtype, but x may be bfloat16, the result of a product, where they are
    float32. Then the result is also returned in bfloat16, for the next product; if only that is needed (not `whole`),
    both are the same tensor.
    """
    triton = triton_switch.in_use and not x.is_cpu
    if weight.dtype is not torch.float32 or not (triton or (x.is_cpu and KERNEL)):
        return forward_torch(x, shift, weight, bias, epsilon, relu, skip, whole)
    half = x.dtype is torch.bfloat16
    x, skip = x.contiguous(), None if skip is None else skip.contiguous()
    members, rows, width = x.shape
    y = torch.empty_like(x, dtype=torch.float32) if whole or not half else None
    rounded = torch.empty_like(x) if half else None
    statistics = torch.empty(2, members, rows, 1, dtype=torch.float32, device=x.device)
    result = rounded if y is None else y
    assert result is not None
    kept = Kept(x, shift, weight, statistics)
    if triton:
        from learner.networks import norm_triton

        norm_triton.forward(x, shift, weight, bias, epsilon, relu, skip, y, rounded, statistics)
        return result, rounded, kept
    assert KERNEL is not None
    mean = statistics.data_ptr()
    arguments = Forward(
        members,
        rows,
        width,
        x.data_ptr(),
        shift.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        None if skip is None else skip.data_ptr(),
        None if y is None else y.data_ptr(),
        None if rounded is None else rounded.data_ptr(),
        mean,
        mean + FLOAT32 * members * rows,
        epsilon,
        relu,
        half,
    )
    KERNEL.brc_norm_forward(ctypes.byref(arguments))
    return result, rounded, kept


def backward(gradient: Tensor, y: Tensor | None, kept: Kept, sums: Tensor) -> Tensor:
    """Return the gradient of x, in its dtype. Write those of shift, weight and bias to `sums` (3, H, n), contiguous.

    `y` is the result of the forward pass, in the dtype of x, if it had a ReLU. The gradient may be bfloat16 too.
    """
    x, gradient = kept.x, gradient.contiguous()
    if x.dtype is not torch.bfloat16 and gradient.dtype is not x.dtype:
        gradient = gradient.to(x.dtype)
    triton = triton_switch.in_use and not x.is_cpu
    if kept.weight.dtype is not torch.float32 or not (triton or (x.is_cpu and KERNEL)):
        return backward_torch(gradient, y, kept, sums)
    into = torch.empty_like(x)
    if triton:
        from learner.networks import norm_triton

        norm_triton.backward(gradient, y, x, kept.shift, kept.weight, kept.statistics, into, sums)
        return into
    assert KERNEL is not None
    members, rows, width = x.shape
    parts: int = KERNEL.brc_norm_parts(members, rows, width)
    scratch = torch.empty((3 * (parts - 1) + parts) * members * width, dtype=torch.float32, device=x.device)
    mean = kept.statistics.data_ptr()
    arguments = Backward(
        members,
        rows,
        width,
        gradient.data_ptr(),
        None if y is None else y.data_ptr(),
        x.data_ptr(),
        kept.shift.data_ptr(),
        kept.weight.data_ptr(),
        mean,
        mean + FLOAT32 * members * rows,
        into.data_ptr(),
        sums.data_ptr(),
        scratch.data_ptr(),
        gradient.dtype is torch.bfloat16,
        x.dtype is torch.bfloat16,
    )
    KERNEL.brc_norm_backward(ctypes.byref(arguments), parts)
    return into


def forward_torch(
    x: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor,
    epsilon: float,
    relu: bool,
    skip: Tensor | None,
    whole: bool = True,
) -> tuple[Tensor, Tensor | None, Kept]:
    """Do the same as `forward` with torch's operations."""
    shifted = x + shift.unsqueeze(1)
    normal, mean, scale = torch.native_layer_norm(shifted, shifted.shape[-1:], None, None, epsilon)
    y = torch.addcmul(bias.unsqueeze(1), normal, weight.unsqueeze(1))
    if relu:
        y = torch.relu_(y)
    if skip is not None:
        y = y.add_(skip)
    kept = Kept(x, shift, weight, torch.stack((mean, scale)))
    if x.dtype is not torch.bfloat16:
        return y, None, kept
    rounded = y.bfloat16()
    return (y if whole else rounded), rounded, kept


def backward_torch(gradient: Tensor, y: Tensor | None, kept: Kept, sums: Tensor) -> Tensor:
    """Do the same as `backward` with torch's operations."""
    x, shift, weight, statistics = kept
    mean, scale = statistics
    gradient, shifted = gradient.to(weight.dtype), x + shift.unsqueeze(1)
    if y is not None:
        gradient = torch.ops.aten.threshold_backward(gradient, y.to(weight.dtype), 0)
    of_normal = gradient * weight.unsqueeze(1)
    into: Tensor
    into, _, _ = torch.ops.aten.native_layer_norm_backward(
        of_normal, shifted, x.shape[-1:], mean, scale, None, None, (True, False, False)
    )
    torch.sum(into, dim=1, out=sums[0])
    torch.sum(gradient * ((shifted - mean) * scale), dim=1, out=sums[1])
    torch.sum(gradient, dim=1, out=sums[2])
    return into.to(x.dtype)
