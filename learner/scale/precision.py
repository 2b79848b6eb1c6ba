"""The precision of the networks' products. Parameters, losses and moving averages keep their own precision.

auto: the fastest precision on this machine that learns as well as float32. It is measured (learner.scale.tuning) or,
where results must not depend on time or measuring would take too long, chosen by a rule (`fastest`).
float64, float32: products in the type of the parameters.
tf32: float32 parameters; products on NVIDIA GPUs round their factors to ten bits.
bf16: linear layers in bfloat16, with float32 parameters. A device without bfloat16 instructions rounds the factors to
bfloat16 as such hardware does and multiplies in float32, so that the effect of bf16 on learning can be measured on
every machine. On such a device convolutions stay in float32; hardware with bfloat16 runs them in bfloat16 too.
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
    """Return the precision that `auto` is without a measurement: bf16 if the device has instructions for it, else
    float32.

    On a CPU, bf16 needs a width of 256: for narrower layers rounding costs more than products save
    (docs/performance.md).
    """
    return "bf16" if multiplies_bfloat16(device) and (device != "cpu" or width >= WIDE) else "float32"


def multiplies_bfloat16(device: str) -> bool:
    """Whether the device has instructions for products in bfloat16."""
    if device == "cuda":
        found: bool = torch.cuda.is_bf16_supported(including_emulation=False)
        return found
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def set_products(precision: Precision) -> None:
    """Let CUDA round the factors of float32 products if the precision is tf32. This holds for the whole process."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def run_in_bfloat16(module: nn.Module, device: str) -> None:
    """Make `module` compute in bfloat16, or emulate it. Its parameters and its outputs stay float32."""
    if multiplies_bfloat16(device):
        autocast(module, device)
    else:
        round_factors(module)


def autocast(module: nn.Module, device: str) -> None:
    """Run `module.forward` under torch.autocast in bfloat16. Outputs get the dtype of the inputs, so that losses are
    computed in full precision."""
    forward = module.forward

    @functools.wraps(forward)
    def mixed(*inputs: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        with torch.autocast(device, torch.bfloat16):
            outputs = forward(*inputs)
        dtype = next(value.dtype for value in inputs if value is not None)
        return outputs.to(dtype) if isinstance(outputs, Tensor) else tuple(output.to(dtype) for output in outputs)

    module.forward = mixed


def round_factors(module: nn.Module) -> None:
    """Emulate bfloat16 in linear layers. The results are those of an NVIDIA GPU, apart from the order of sums: the
    product of two bfloat16 numbers is a float32.

    torch's own bfloat16 products on a CPU are about twenty times slower than this.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.__class__ = RoundedLinear


class RoundedLinear(nn.Linear):
    """A linear layer whose inputs, parameters and outputs, and the gradients of all these, are rounded to bfloat16."""

    def forward(self, inputs: Tensor) -> Tensor:
        return rounded(F.linear(rounded(inputs), rounded(self.weight), rounded(self.bias)))


def rounded(tensor: Tensor) -> Tensor:
    """Round a tensor to bfloat16. Its gradient is rounded too, since it passes through the same two casts."""
    return tensor.bfloat16().float()
