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

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from learner.networks.layers import Convolution3x3, Linear, Products
from learner.networks.torch_network import chains

Precision = Literal["auto", "float64", "float32", "tf32", "bf16"]
WIDE = 256


def parameter_dtype(precision: Precision) -> torch.dtype:
    return torch.float64 if precision == "float64" else torch.float32


@contextmanager
def made_in(dtype: torch.dtype, device: torch.device | str) -> Iterator[None]:
    """Make all tensors of this context that do not name a dtype or device of this dtype and on this device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


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
    """Let CUDA round the factors of float32 products and convolutions if the precision is tf32, and only then: by
    default torch lets cuDNN round those of convolutions. This holds for the whole process."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def run_in_bfloat16(module: nn.Module, device: str) -> None:
    """Compute the products of a module in bfloat16, or emulate that. Its parameters and outputs stay float32."""
    native = multiplies_bfloat16(device)
    products: Products = "bfloat16" if native else "rounded"
    for chain in chains(module):
        chain.products = products
    for part in module.modules():
        if isinstance(part, Linear):
            part.products = products  # outside of chains
        if native and isinstance(part, Convolution3x3):
            part.__class__ = BFloat16Convolution


class BFloat16Convolution(Convolution3x3):
    """A convolution in bfloat16 of float32 inputs and parameters."""

    def forward(self, inputs: Tensor) -> Tensor:
        assert self.bias is not None
        found: Tensor = self._conv_forward(inputs.bfloat16(), self.weight.bfloat16(), self.bias.bfloat16()).to(
            inputs.dtype
        )
        return found
