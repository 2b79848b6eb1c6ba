"""Steps environments and feeds replay. Nothing here imports torch, except the image layers of `policies`.

benchmarks/  the tasks that exist, one file for each benchmark, and how they are scored
backends/    one file for each library that steps environments, behind the interface of environments.py
policies/    the published policy in numpy
actor.py is the loop that fills replay. evaluator.py plays whole episodes with the deterministic policy. Both also work
in one process, without Ray. process.py runs each of them as a Ray actor. fleet.py keeps the desired number of actors
alive.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
__all__ = [
    "Actor",
    "ActorSpec",
    "Benchmark",
    "Evaluator",
    "Task",
    "make_environment",
    "make_environments",
]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)
