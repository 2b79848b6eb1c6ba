"""The agents, and the processes that train them.

agents/    the algorithms, in plain torch: BRC (arXiv 2505.23150) and its discrete form
networks/  their networks, and what these take in memory and operations
state/     checkpoints, published policies, and agents that begin with what another has learned
scale/     ranks, sharding, precision, threads and recorded updates
learner.py is one agent with its optimisers, counters and random state. process.py makes the ranks Ray actors, and
jobs.py says what others may ask of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learner.config import LearnerConfig as LearnerConfig
    from learner.learner import Learner as Learner
    from learner.learner import LearnerSpec as LearnerSpec
    from learner.learner import make_learner as make_learner
    from learner.networks.spec import NetworkSpec as NetworkSpec
# The public names. They are loaded when they are asked for: most processes need few of them.
PUBLIC = {
    "Learner": "learner.learner",
    "LearnerSpec": "learner.learner",
    "NetworkSpec": "learner.networks.spec",
    "LearnerConfig": "learner.config",
    "make_learner": "learner.learner",
}
__all__ = [
    "Learner",
    "LearnerConfig",
    "LearnerSpec",
    "NetworkSpec",
    "make_learner",
]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)
