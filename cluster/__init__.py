"""Makes a system of the parts: the `brc` command, a run's configuration, and the processes that conduct it.

cli/        the `brc` command
config/     the options of a run and the presets
plan/       what a configuration amounts to: the specification of every part
preflight/  all checks before a run starts
run/        what a run keeps and shows: its folder, registry entry, session and checkpoints
supervise/  the coordinator and its view of the processes that it starts and replaces
backend/    Ray, on this machine or on a cluster
deploy/     cluster descriptions, and commands sent to a cluster
training.py is the path from a configuration to a finished run, and serial.py the run in one process. This package
imports all others; none of them imports it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.config.presets import PRESETS as PRESETS
    from cluster.config.schema import Config as Config
    from cluster.plan.plan import make_plan as make_plan
    from cluster.training import train as train
# The public names. They are loaded when they are asked for: most processes need few of them.
PUBLIC = {
    "Config": "cluster.config.schema",
    "PRESETS": "cluster.config.presets",
    "make_plan": "cluster.plan.plan",
    "train": "cluster.training",
}
__all__ = [
    "PRESETS",
    "Config",
    "make_plan",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)
