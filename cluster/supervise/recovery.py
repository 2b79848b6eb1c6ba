"""What of a run outlives its coordinator, and how the next one finds its way in it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ray.actor import ActorHandle

from actors.actor import Assignment
from cluster.backend.parts import Parts
from cluster.plan.plan import Plan
from cluster.run.folder import RunFolder
from cluster.run.kept import Kept
from cluster.run.session import Session
from dashboards.events import ActorDied, ActorStarted
from dashboards.sinks import records

Living = dict[Assignment, tuple[int, ActorHandle]]


def actor_name(name: str, tasks: Sequence[int], incarnation: int) -> str:
    """Of the Ray actor in the fleet's place of this name. Its tasks tell it from one of a fleet of another size."""
    return f"actor-{name}-{incarnation}-{'.'.join(map(str, tasks))}"


def incarnation_of(name: str) -> int:
    return int(name.split("-")[-2])


def living_actors(parts: Parts, alive: Sequence[str], assignments: Sequence[Assignment]) -> Living:
    """The living actors by their assignments, with their incarnations.

    Actors whose assignment is not wanted any more are ended. Of two with the same assignment the older one is ended: it
    was leaving.
    """
    found: Living = {}
    for name in sorted((name for name in alive if name.startswith("actor-")), key=incarnation_of, reverse=True):
        incarnation = incarnation_of(name)
        wanted = (one for one in assignments if actor_name(one.name, one.tasks, incarnation) == name)
        what = next(wanted, None)
        if what is None or what in found:
            parts.kill(name)
        else:
            with suppress(ValueError):  # it has died since
                found[what] = (incarnation, parts.find(name))
    return found


def first_incarnation(folder: RunFolder, alive: Sequence[str]) -> int:
    """Above all that the run has had: shards that outlived them know their pushes."""
    events = [entry.event for entry in records.read_events(folder.path)]
    known = [event.incarnation for event in events if isinstance(event, (ActorStarted, ActorDied))]
    known += [incarnation_of(name) for name in alive if name.startswith("actor-")]
    kept = [folder.manifest.incarnation if folder.manifest else -1, folder.kept.incarnation if folder.kept else -1]
    return 1 + max([*known, *kept])


def rank_name(life: int, rank: int) -> str:
    return f"learner-{life}-{rank}"


def living_learner(parts: Parts, alive: Sequence[str], ranks: int, kept: Kept | None) -> int:
    """The life of the learner whose ranks all live and were ready once, or else of the next; what is left of others is
    ended."""
    found = [name for name in alive if name.startswith("learner-")]
    lives = {int(name.split("-")[1]) for name in found}
    life = kept.life if kept else -1
    if not {rank_name(life, rank) for rank in range(ranks)} <= set(found):
        life = 1 + max([*lives, life])
    for name in found:
        if not name.startswith(f"learner-{life}-"):
            parts.kill(name)
    for group in parts.groups():
        if group != f"learner-{life}":
            parts.release(group)
    return life


@dataclass(frozen=True)
class Survivors:
    """What an earlier coordinator of the run has left.

    Attributes:
        alive: names of living parts; none without a shard.
        kept: what it wrote down; None for nothing.
        attached: whether replay lives, so that the run goes on where it is.
        take: how often the run's replay has been taken over, this time included.
        life: of the learner that lives, or is to begin.
        trains: whether that learner lives.
        first_incarnation: that a new actor may have.
    """

    alive: list[str]
    kept: Kept | None
    attached: bool
    take: int
    life: int
    trains: bool
    first_incarnation: int


def find_survivors(plan: Plan, session: Session, parts: Parts) -> Survivors:
    """Look what lives of the run, and end what is of no use: all of it without a shard, and evaluators in any case."""
    folder, alive = session.folder, parts.alive()
    attached = any(name.startswith("shard-") for name in alive)
    kept = folder.kept if attached else None
    if kept is not None:
        session.take_over(kept)
    if not attached:  # what lives without replay is ahead of the checkpoint, or of another time
        parts.end()
        alive = []
        session.goes_back()
    life = living_learner(parts, alive, plan.config.learner.ranks, kept)
    for name in alive:
        if name.startswith("evaluator-"):  # the coordinator that asked it is dead
            parts.kill(name)
    return Survivors(
        alive=alive,
        kept=kept,
        attached=attached,
        take=max(1, folder.takes if attached else folder.takes + 1),
        life=life,
        trains=attached and rank_name(life, 0) in alive,
        first_incarnation=first_incarnation(folder, alive),
    )
