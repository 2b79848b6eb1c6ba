"""Published returns of agents that learn one task each: XQC, FlashSAC, SimbaV2, SimBa, SAC, BRO and TD-MPC2.

peers.json has their means over seeds, from the result files that their authors publish; it names the repositories. A
step is a frame of the environment. Agents that repeat each action twice make a decision every second frame.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Peer(NamedTuple):
    """An agent's mean return of a task after a number of frames."""

    agent: str
    action_repeat: int
    value: float


@cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "peers.json").read_text())
    return found


def at(task: str, frames: float) -> list[Peer]:
    """Return the agents with a curve of a task, such as dmc/dog-run, that covers these frames, best first."""
    found = []
    for agent, published in document()["agents"].items():
        curve = published["tasks"].get(task)
        if curve is not None and curve["steps"][0] <= frames <= curve["steps"][-1]:
            value = float(np.interp(frames, curve["steps"], curve["mean"]))
            found.append(Peer(agent, published["action_repeat"], value))
    return sorted(found, key=lambda peer: -peer.value)
