"""What a run has to work with: this machine, or the nodes of a cluster."""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


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
    gpus = visible(os.environ.get("CUDA_VISIBLE_DEVICES"), gpu_files(), gpu_names())
    return Machine("this machine", gpus, any(map(shutil.which, compilers)))


def visible(named: str | None, files: int, names: Sequence[str]) -> int:
    """GPUs that CUDA shows a process, by its own rules.

    Args:
        named: CUDA_VISIBLE_DEVICES, None where it is not set: numbers, or the beginnings of names. What comes after
            one that there is not is hidden, and if one is named twice, all are.
        files: GPUs that there are.
        names: what they are called, as GPU-<uuid>; where nothing says so, any name is believed.
    """
    if named is None:
        return files
    found: list[str] = []
    for one in map(str.strip, named.split(",") if files else []):
        if re.fullmatch(r"[0-9]+", one):
            known = int(one) < files
        else:  # of the parts of a GPU that is divided, a process has one, and only its driver knows them
            known = one.startswith("MIG-") or (one.startswith("GPU-") and is_one_of(one, names))
        if not known:
            break
        found.append(str(int(one)) if one.isdecimal() else one)
    return len(found) if len(set(found)) == len(found) else 0


def is_one_of(beginning: str, names: Sequence[str]) -> bool:
    return not names or any(name.startswith(beginning) for name in names)


def gpu_files() -> int:
    """NVIDIA GPUs that this process could open."""
    return len(glob.glob("/dev/nvidia[0-9]*")) if os.path.exists("/dev/nvidiactl") else 0


def gpu_names() -> list[str]:
    """GPU-<uuid> of each, as their driver says."""
    texts = [Path(file).read_text() for file in glob.glob("/proc/driver/nvidia/gpus/*/information")]
    return re.findall(r"GPU UUID:\s*(\S+)", "\n".join(texts))
