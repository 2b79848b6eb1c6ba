"""The parts of a run, and what each is handed: the same in one process and on Ray.

    actors --push--> shards --sample--> learner --publish--> store --pull--> actors
                                        learner --policy---> evaluators

A backend makes them: cluster/backend/in_process.py as objects that a serial run calls one after the other,
cluster/supervise/on_ray.py as processes that a coordinator keeps alive.
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
    """Makes each part of a run, or finds one that lives."""

    def shards(self) -> Shards:
        """Replay, spread over shards."""

    def store(self) -> Store:
        """What holds the newest policy for actors."""

    def learner(self, shards: Shards, store: Store) -> Learner:
        """What samples from the shards, makes updates and publishes policies in the store."""

    def evaluators(self, learner: Learner) -> Evaluators:
        """What plays the learner's policies for scores."""

    def actors(self, shards: Shards, store: Store) -> Actors:
        """What steps environments with policies of the store, and pushes to the shards."""


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
    """Make all parts, in the order in which they need each other."""
    shards = backend.shards()
    store = backend.store()
    learner = backend.learner(shards, store)
    evaluators = backend.evaluators(learner)
    return Topology(shards, store, learner, evaluators, backend.actors(shards, store))
