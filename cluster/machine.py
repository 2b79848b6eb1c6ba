"""What a run has to work with: this machine, or the nodes of a cluster."""

from __future__ import annotations

import glob
import os
import shutil
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What a configuration is held against.

    Attributes:
        name: what messages call it.
        gpus: NVIDIA GPUs that a learner may have.
        compiler: whether a C++ compiler is there, for --learner.compile.
        is_cluster: whether memory and disks are those of other machines, which say themselves what they lack.
    """

    name: str
    gpus: int
    compiler: bool
    is_cluster: bool = False


def this_machine() -> Machine:
    compilers = (os.environ.get("CXX", "c++"), "g++", "clang++")
    return Machine("this machine", visible_gpus(), any(map(shutil.which, compilers)))


def visible_gpus() -> int:
    """NVIDIA GPUs that a process of this machine finds."""
    if not os.path.exists("/dev/nvidiactl"):
        return 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return len(glob.glob("/dev/nvidia[0-9]*")) if named is None else len([one for one in named.split(",") if one])
