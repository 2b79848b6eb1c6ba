"""The parts of a run, and what each part is given: the same in one process and on Ray.

    actors --push--> shards --sample--> learner --publish--> store --pull--> actors
                                        learner --policy---> evaluators

A backend makes the parts. cluster/backend/in_process.py makes objects that a serial run calls one after the other,
cluster/supervise/on_ray.py makes processes that a coordinator keeps alive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Shards = TypeVar("Shards")
Store = TypeVar("Store")
Learner = TypeVar("Learner")
Evaluators = TypeVar("Evaluators", covariant=True)
Actors = TypeVar("Actors", covariant=True)


class Backend(Protocol[Shards, Store, Learner, Evaluators, Actors]):
    """Makes each part of a run, or finds the part that is alive already."""

    def shards(self) -> Shards:
        """Return the shards of replay."""

    def store(self) -> Store:
        """Return the store of the newest policy for actors."""

    def learner(self, shards: Shards, store: Store) -> Learner:
        """Return the learner, which samples from the shards, makes updates and publishes policies in the store."""

    def evaluators(self, learner: Learner) -> Evaluators:
        """Return the evaluators, which play the learner's policies and score them."""

    def actors(self, shards: Shards, store: Store) -> Actors:
        """Return the actors, which step environments with policies from the store and push to the shards."""


@dataclass(frozen=True)
class Topology(Generic[Shards, Store, Learner, Evaluators, Actors]):
    """All parts of a run."""

    shards: Shards
    store: Store
    learner: Learner
    evaluators: Evaluators
    actors: Actors


def build(
    backend: Backend[Shards, Store, Learner, Evaluators, Actors],
) -> Topology[Shards, Store, Learner, Evaluators, Actors]:
    """Make all parts, each after the parts that it needs."""
    shards = backend.shards()
    store = backend.store()
    learner = backend.learner(shards, store)
    evaluators = backend.evaluators(learner)
    return Topology(shards, store, learner, evaluators, backend.actors(shards, store))
