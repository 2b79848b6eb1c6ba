"""BRC on a device that fails in the hundredth update of a process, unless the file that BRC_TEST_BROKEN names exists.

Then it makes the file: a process that starts later has no such failure.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner.agents import brc
from learner.agents.catalogue import AGENTS

UPDATES = count(1)


def update(*arguments: Any) -> dict[str, Tensor]:
    broken = Path(os.environ["BRC_TEST_BROKEN"])
    if next(UPDATES) == 100 and not broken.exists():
        broken.touch()
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    return brc.update(*arguments)


AGENT = replace(brc.AGENT, update=update)
BROKEN = replace(AGENTS["brc"], algorithm="tests.support.broken_device:AGENT")
