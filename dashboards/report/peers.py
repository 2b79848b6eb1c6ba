"""Published results of agents that learn one task each: XQC, FlashSAC, SimbaV2, SimBa, SAC, BRO, TD-MPC2 and others.

peers.json has their means over seeds, from the result files that their authors publish; it names the repositories. A
step is a frame of the environment, over all copies. Agents that repeat each action twice make a decision every second
frame.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from actors.benchmarks.catalogue import all_tasks, benchmark_of


class Peer(NamedTuple):
    """An agent's mean return of a task after a number of frames; in tasks by success its rate of success."""

    agent: str
    action_repeat: int
    value: float
    easier: bool  # whether the task is easier here than it was there


@cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "peers.json").read_text())
    return found


def curves(task: str) -> dict[str, tuple[int, list[float], list[float]]]:
    """Return, for each agent with this task, how often it repeats an action, frames, and means."""
    return {
        agent: (published["action_repeat"], curve["steps"], curve["mean"])
        for agent, published in document()["agents"].items()
        if (curve := published["tasks"].get(task)) is not None
    }


def at(task: str, frames: float) -> list[Peer]:
    """Return the agents with a curve of a task, such as dmc/dog-run, that covers these frames, best first."""
    known = all_tasks().get(task)
    # What is drawn anew at every reset there, such as a goal, may not be drawn here.
    easier = known is not None and bool(benchmark_of(task).caution(known))
    found = [
        Peer(agent, repeat, float(np.interp(frames, steps, means)), easier)
        for agent, (repeat, steps, means) in curves(task).items()
        if steps[0] <= frames <= steps[-1]
    ]
    return sorted(found, key=lambda peer: -peer.value)
