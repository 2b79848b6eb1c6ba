"""In what precision the products of the networks are made. Parameters, losses and moving averages keep theirs.

float64, float32: products in the parameters' own type. tf32: float32 whose products round their factors to ten bits, on
NVIDIA GPUs. bf16: linear layers and what lies between them in bfloat16, with float32 parameters.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["float64", "float32", "tf32", "bf16"]


def parameter_dtype(precision: Precision) -> torch.dtype:
    return torch.float64 if precision == "float64" else torch.float32


def fastest(device: str) -> Precision:
    """The fastest that learns as float32 does: bf16 where the device multiplies it, else float32."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has_products = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if has_products else "float32"


def set_products(precision: Precision) -> None:
    """Whether CUDA may round the factors of float32 products. It holds for the process."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def run_in_bfloat16(module: nn.Module, device: str) -> None:
    """Have `module` compute in bfloat16; what it returns has its inputs' type again, so that losses lose nothing."""
    forward = module.forward

    @functools.wraps(forward)
    def mixed(*inputs: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        with torch.autocast(device, torch.bfloat16):
            outputs = forward(*inputs)
        dtype = next(value.dtype for value in inputs if value is not None)
        return outputs.to(dtype) if isinstance(outputs, Tensor) else tuple(output.to(dtype) for output in outputs)

    module.forward = mixed
