"""The hardware that a run can use: this machine, or the nodes of a cluster."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The hardware that a configuration is checked against.

    Attributes:
        name: its name in messages.
        gpus: NVIDIA GPUs that a learner may have.
        is_cluster: whether memory and disks belong to other machines, which check them themselves.
    """

    name: str
    gpus: int
    is_cluster: bool = False


def this_machine() -> Machine:
    gpus = visible(os.environ.get("CUDA_VISIBLE_DEVICES"), gpu_files(), gpu_names())
    return Machine("this machine", gpus)


def visible(named: str | None, files: int, names: Sequence[str]) -> int:
    """Return the number of GPUs that CUDA shows to a process, by the rules of CUDA.

    Args:
        named: CUDA_VISIBLE_DEVICES, None where it is not set: numbers, or the beginnings of names. An entry
            that names no GPU hides itself and all entries after it. A GPU that is named twice hides all.
        files: number of GPUs of the machine.
        names: names of these GPUs, as GPU-<uuid>. If empty, every name counts as a GPU's.
    """
    if named is None:
        return files
    found: list[str] = []
    for one in map(str.strip, named.split(",") if files else []):
        if re.fullmatch(r"[0-9]+", one):
            known = int(one) < files
        else:  # a process has one part of a GPU that is divided (MIG), and only the driver knows the parts
            known = one.startswith("MIG-") or (one.startswith("GPU-") and is_one_of(one, names))
        if not known:
            break
        found.append(str(int(one)) if one.isdecimal() else one)
    return len(found) if len(set(found)) == len(found) else 0


def is_one_of(beginning: str, names: Sequence[str]) -> bool:
    return not names or any(name.startswith(beginning) for name in names)


def gpu_files() -> int:
    """Return the number of NVIDIA GPUs that this process could open."""
    return len(glob.glob("/dev/nvidia[0-9]*")) if os.path.exists("/dev/nvidiactl") else 0


def gpu_names() -> list[str]:
    """Return the name GPU-<uuid> of each GPU, as the driver reports it."""
    texts = [Path(file).read_text() for file in glob.glob("/proc/driver/nvidia/gpus/*/information")]
    return re.findall(r"GPU UUID:\s*(\S+)", "\n".join(texts))
