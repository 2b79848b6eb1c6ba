"""Chooses the device of the learner: CPU or GPU."""

from __future__ import annotations

from cluster.errors import RunFailed
from cluster.preflight.machine import this_machine
from learner.config import Device


def learner_device(asked: str) -> Device:
    """Return cpu or cuda, given cpu, cuda or auto. Raises RunFailed where there is a GPU that torch cannot use: on the
    CPU the run would take a hundred times longer."""
    import torch

    gpus = this_machine().gpus
    if asked == "cpu" or (asked == "auto" and not gpus and not torch.cuda.is_available()):
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    built = f"CUDA {torch.version.cuda}, for which the driver may be too old" if torch.version.cuda else "no GPU"
    raise RunFailed(
        f"--learner.device {asked}: torch {torch.__version__} is built for {built}, and finds no GPU, where this "
        f"machine has {gpus} of NVIDIA: install one that fits, or use --learner.device cpu"
    )
