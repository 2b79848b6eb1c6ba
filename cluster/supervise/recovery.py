"""Recovery of a run: the next coordinator finds the parts and the state that outlive the previous one."""

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
    """Return the name of the Ray actor in a place of the fleet. Its tasks distinguish fleets of different sizes."""
    return f"actor-{name}-{incarnation}-{'.'.join(map(str, tasks))}"


def incarnation_of(name: str) -> int:
    return int(name.split("-")[-2])


def living_actors(parts: Parts, alive: Sequence[str], assignments: Sequence[Assignment]) -> Living:
    """Return the living actors by their assignments, with their incarnations.

    End actors whose assignment is no longer wanted. Of two actors with the same assignment, end the older one, which
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
            with suppress(ValueError):  # the actor has died since
                found[what] = (incarnation, parts.find(name))
    return found


def first_incarnation(folder: RunFolder, alive: Sequence[str]) -> int:
    """Return an incarnation above all earlier ones of the run: living shards still know the pushes of those."""
    events = [entry.event for entry in records.read_events(folder.path)]
    known = [event.incarnation for event in events if isinstance(event, (ActorStarted, ActorDied))]
    known += [incarnation_of(name) for name in alive if name.startswith("actor-")]
    kept = [folder.manifest.incarnation if folder.manifest else -1, folder.kept.incarnation if folder.kept else -1]
    return 1 + max([*known, *kept])


def rank_name(life: int, rank: int) -> str:
    return f"learner-{life}-{rank}"


def living_learner(parts: Parts, alive: Sequence[str], ranks: int, kept: Kept | None) -> int:
    """Return the life of the kept learner, which was ready once, if all its ranks live; else the next life. End the
    ranks of all other lives."""
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
    """Parts and state that an earlier coordinator of the run has left.

    Attributes:
        alive: names of living parts; empty if no shard lives.
        kept: state that the earlier coordinator wrote down, or None.
        attached: whether replay lives, so that the run goes on where it is.
        take: how often the run's replay has been taken over, this time included.
        life: life of the learner that lives, or of the learner to start.
        trains: whether that learner lives.
        first_incarnation: lowest incarnation that a new actor may have.
    """

    alive: list[str]
    kept: Kept | None
    attached: bool
    take: int
    life: int
    trains: bool
    first_incarnation: int


def find_survivors(plan: Plan, session: Session, parts: Parts) -> Survivors:
    """Find the living parts of the run. End all of them if no shard lives; end evaluators in any case."""
    folder, alive = session.folder, parts.alive()
    attached = any(name.startswith("shard-") for name in alive)
    kept = folder.kept if attached else None
    if kept is not None:
        session.take_over(kept)
    if not attached:  # without replay, living parts do not match the checkpoint
        parts.end()
        alive = []
        session.goes_back()
    life = living_learner(parts, alive, plan.config.learner.ranks, kept)
    for name in alive:
        if name.startswith("evaluator-"):  # its requester, the earlier coordinator, is dead
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
