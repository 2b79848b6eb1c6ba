"""What of a run outlives its coordinator, and how the next one finds its way in it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ray.actor import ActorHandle

from actors.actor import Assignment
from cluster.backend.parts import Parts
from cluster.run.folder import RunFolder
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
    known = [event["incarnation"] for event in records.read(folder.path / "events.jsonl") if "incarnation" in event]
    known += [incarnation_of(name) for name in alive if name.startswith("actor-")]
    kept = [one.get("incarnation", -1) for one in (folder.manifest, folder.kept)]
    return 1 + max([*known, *kept])


def rank_name(life: int, rank: int) -> str:
    return f"learner-{life}-{rank}"


def living_learner(parts: Parts, alive: Sequence[str], ranks: int, kept: dict[str, Any]) -> int:
    """The life of the learner whose ranks all live and were ready once, or else of the next; what is left of others is
    ended."""
    found = [name for name in alive if name.startswith("learner-")]
    lives = {int(name.split("-")[1]) for name in found}
    life = kept.get("life", -1)
    if not {rank_name(life, rank) for rank in range(ranks)} <= set(found):
        life = 1 + max([*lives, life])
    for name in found:
        if not name.startswith(f"learner-{life}-"):
            parts.kill(name)
    for group in parts.groups():
        if group != f"learner-{life}":
            parts.release(group)
    return life
