"""Combine the parts into a system: the `brc` command, a run's configuration, and the processes that conduct a run.

cli/        the `brc` command
config/     the options of a run and the presets
plan/       the specification of every part, derived from a configuration
preflight/  all checks before a run starts
run/        the data that a run keeps and shows: its folder, registry entry, session and checkpoints
supervise/  the coordinator and its view of the processes that it starts and replaces
backend/    Ray, on this machine or on a cluster
deploy/     cluster descriptions, and commands sent to a cluster
training.py takes a configuration to a finished run; serial.py is the run in one process. This package imports all
other packages; none of them imports this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.lazy import lazily

if TYPE_CHECKING:
    from cluster.config.presets import PRESETS as PRESETS
    from cluster.config.schema import Config as Config
    from cluster.plan.plan import make_plan as make_plan
    from cluster.training import train as train
# The public names. Each is loaded at its first use: most processes need few of them.
PUBLIC = {
    "Config": "cluster.config.schema",
    "PRESETS": "cluster.config.presets",
    "make_plan": "cluster.plan.plan",
    "train": "cluster.training",
}
__all__ = tuple(PUBLIC)
__getattr__ = lazily(__name__, PUBLIC)
