"""Steps environments and feeds replay. Nothing here imports torch, except the image layers of `policies`.

benchmarks/  the tasks that exist, one file for each benchmark, and how they are scored
backends/    one file for each library that steps environments, behind the interface of environments.py
policies/    the published policy in numpy
actor.py is the loop that fills replay. evaluator.py plays whole episodes with the deterministic policy. Both also work
in one process, without Ray. process.py runs each of them as a Ray actor. fleet.py keeps the desired number of actors
alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.lazy import lazily

if TYPE_CHECKING:
    from actors.actor import Actor as Actor
    from actors.actor import ActorSpec as ActorSpec
    from actors.actor import make_environments as make_environments
    from actors.benchmarks.benchmark import Benchmark as Benchmark
    from actors.benchmarks.benchmark import Task as Task
    from actors.environments import make_environment as make_environment
    from actors.evaluator import Evaluator as Evaluator
# Public names and their modules. A module is imported when its name is used: most processes need few of them.
PUBLIC = {
    "Actor": "actors.actor",
    "ActorSpec": "actors.actor",
    "Benchmark": "actors.benchmarks.benchmark",
    "Evaluator": "actors.evaluator",
    "Task": "actors.benchmarks.benchmark",
    "make_environment": "actors.environments",
    "make_environments": "actors.actor",
}
__all__ = tuple(PUBLIC)
__getattr__ = lazily(__name__, PUBLIC)
