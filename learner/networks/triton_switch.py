"""Whether this process uses kernels in Triton on its GPU, in place of torch's operations."""

from __future__ import annotations

import importlib.util
import shutil

import torch

in_use = False


def use_triton(wanted: bool) -> None:
    """Use kernels in Triton from now on, if they are wanted and can be compiled. Triton needs a C compiler; bfloat16
    needs an NVIDIA GPU of the Ampere generation or later."""
    global in_use
    if torch.cuda.is_available() and torch.version.cuda and torch.cuda.get_device_capability() < (8, 0):
        wanted = False
    compiler = any(map(shutil.which, ("cc", "gcc", "clang")))
    in_use = wanted and compiler and importlib.util.find_spec("triton") is not None


def serves(tensor: torch.Tensor) -> bool:
    """Whether kernels in Triton compute what is asked of a float32 tensor."""
    return in_use and not tensor.is_cpu and tensor.dtype is torch.float32
