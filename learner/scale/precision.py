"""In what precision the products of the networks are made. Parameters, losses and moving averages keep theirs.

auto: the fastest that the machine which makes them has and that learns as float32 does. It is measured
(learner.scale.tuning) or, where nothing may depend on time or much does not fit, told by a rule (`fastest`).
float64, float32: products in the parameters' own type. tf32: float32 whose products round their factors to ten bits, on
NVIDIA GPUs. bf16: linear layers in bfloat16, with float32 parameters; a device without instructions for it rounds to
bfloat16 what hardware would and multiplies in float32, so that every machine can tell what bf16 does to learning. Only
convolutions stay float32 there, which hardware runs in bfloat16 too.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Precision = Literal["auto", "float64", "float32", "tf32", "bf16"]
WIDE = 256


def parameter_dtype(precision: Precision) -> torch.dtype:
    return torch.float64 if precision == "float64" else torch.float32


def fastest(device: str, width: int) -> Precision:
    """The fastest that learns as float32 does, unmeasured: bf16 where the device multiplies it, else float32.

    On a CPU, layers narrower than 256 take longer to round than products save (docs/performance.md).
    """
    return "bf16" if multiplies_bfloat16(device) and (device != "cpu" or width >= WIDE) else "float32"


def multiplies_bfloat16(device: str) -> bool:
    """Whether the device has instructions for it."""
    if device == "cuda":
        found: bool = torch.cuda.is_bf16_supported(including_emulation=False)
        return found
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def set_products(precision: Precision) -> None:
    """Whether CUDA may round the factors of float32 products. It holds for the process."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def run_in_bfloat16(module: nn.Module, device: str) -> None:
    """Have `module` compute in bfloat16, or as if it did; its parameters and what it returns stay float32."""
    if multiplies_bfloat16(device):
        autocast(module, device)
    else:
        round_factors(module)


def autocast(module: nn.Module, device: str) -> None:
    """What is returned has the inputs' type again, so that losses lose nothing."""
    forward = module.forward

    @functools.wraps(forward)
    def mixed(*inputs: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        with torch.autocast(device, torch.bfloat16):
            outputs = forward(*inputs)
        dtype = next(value.dtype for value in inputs if value is not None)
        return outputs.to(dtype) if isinstance(outputs, Tensor) else tuple(output.to(dtype) for output in outputs)

    module.forward = mixed


def round_factors(module: nn.Module) -> None:
    """What an NVIDIA GPU computes, but for the order of sums: a product of two bfloat16 is a float32.

    torch's own products of bfloat16 on a CPU are some twenty times slower than this.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.__class__ = RoundedLinear


class RoundedLinear(nn.Linear):
    """Factors and outcome, and the gradients of all of them, are rounded to bfloat16."""

    def forward(self, inputs: Tensor) -> Tensor:
        return rounded(F.linear(rounded(inputs), rounded(self.weight), rounded(self.bias)))


def rounded(tensor: Tensor) -> Tensor:
    """Both ways: the gradient passes through the same two casts."""
    return tensor.bfloat16().float()
