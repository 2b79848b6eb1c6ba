"""Chooses the device of the learner: CPU or GPU."""

from __future__ import annotations

import os

from cluster.errors import RunFailed
from cluster.preflight.machine import this_machine
from learner.config import Device

# Files of the drivers of GPUs that torch may use: NVIDIA's, WSL2's, Jetson's and AMD's. Where none exists torch is not
# asked: it takes seconds to load, and a coordinator needs it for nothing else.
DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap", "/dev/kfd")


def learner_device(asked: str) -> Device:
    """Return cpu or cuda, given cpu, cuda or auto. Raises RunFailed where there is a GPU that torch cannot use: on the
    CPU the run would take a hundred times longer."""
    gpus = this_machine().gpus
    if asked == "cpu" or (asked == "auto" and not gpus and not any(map(os.path.exists, DRIVERS))):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "auto" and not gpus:
        return "cpu"
    built = f"CUDA {torch.version.cuda}, for which the driver may be too old" if torch.version.cuda else "no GPU"
    raise RunFailed(
        f"--learner.device {asked}: torch {torch.__version__} is built for {built}, and finds no GPU, where this "
        f"machine has {gpus} of NVIDIA: install one that fits, or use --learner.device cpu"
    )
