"""The agents, and the processes that train them.

agents/    the algorithms, in plain torch: BRC (arXiv 2505.23150) and its discrete form
networks/  their networks, with counts of parameters and operations
state/     checkpoints, published policies, and transfer of a trained agent to other tasks
scale/     ranks, sharding, precision, threads and recorded updates
learner.py is one agent with its optimisers, counters and random state, made from what spec.py holds. process.py runs
the ranks as Ray actors, loop.py is their work, and jobs.py does the jobs that other threads request between updates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.lazy import lazily

if TYPE_CHECKING:
    from learner.config import LearnerConfig as LearnerConfig
    from learner.learner import Learner as Learner
    from learner.learner import make_learner as make_learner
    from learner.networks.spec import NetworkSpec as NetworkSpec
    from learner.spec import LearnerSpec as LearnerSpec
# The public names. A module is imported when its name is first used: most processes need few of them.
PUBLIC = {
    "Learner": "learner.learner",
    "LearnerSpec": "learner.spec",
    "NetworkSpec": "learner.networks.spec",
    "LearnerConfig": "learner.config",
    "make_learner": "learner.learner",
}
__all__ = tuple(PUBLIC)
__getattr__ = lazily(__name__, PUBLIC)
