"""The Ray processes of a run: their names, by which a coordinator finds those that live, and their places.

All are detached: they outlive the coordinator that started them, and with it the head of a cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from replay.placement import on_node

NAMESPACE = "brc"
Role = Literal["learner", "replay", "actors"]
ROLES: tuple[Role, ...] = ("learner", "replay", "actors")
LEAST = 0.001  # of a resource: enough to be placed by it


def resource(role: str) -> str:
    """Of which nodes for a role declare a thousand."""
    return f"brc-{role}"


class Parts:
    """Those of one run.

    Args:
        run: a name that no other run ever has.
        roles: those that the cluster has nodes of their own for. Other parts go where CPUs are: beside the coordinator,
            if its node has some, as a single machine does.
    """

    def __init__(self, run: str, roles: Sequence[str] = ()) -> None:
        self.run = run
        self.roles = tuple(roles)

    def named(self, name: str) -> dict[str, Any]:
        """Options of the actor of this name."""
        return {"name": self.full_name(name), "namespace": NAMESPACE, "lifetime": "detached"}

    def full_name(self, name: str) -> str:
        return f"{self.run}/{name}"

    def alive(self) -> list[str]:
        """Names of those that live, or that Ray is starting again."""
        prefix = f"{self.run}/"
        found = ray.util.list_named_actors(all_namespaces=True)
        names = [one["name"] for one in found if one["namespace"] == NAMESPACE]
        return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))

    def find(self, name: str) -> ActorHandle:
        """Raises ValueError when there is none."""
        return ray.get_actor(self.full_name(name), namespace=NAMESPACE)

    def place(self, role: Role) -> dict[str, Any]:
        """Options of an actor that is to live where its role does."""
        if role in self.roles:
            return {"resources": {resource(role): LEAST}}
        return on_node() if has_cpus(own_node()) else {"num_cpus": LEAST}

    def nodes(self, role: Role) -> list[str]:
        """Ids of all nodes for a role, this process's first; none yet, perhaps, in a cluster that is starting."""
        wanted = resource(role) if role in self.roles else "CPU"
        own = ray.get_runtime_context().get_node_id()
        found = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get(wanted, 0) > 0]
        return sorted(found, key=lambda node: (node != own, node))

    def end(self) -> None:
        """End all that lives."""
        for name in self.alive():
            self.kill(name)
        for group in self.groups():
            self.release(group)

    def groups(self) -> list[str]:
        """Names of the placement groups there are."""
        prefix = f"{self.run}/"
        names = [group["name"] for group in placement_group_table().values() if group["state"] != "REMOVED"]
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    def kill(self, name: str) -> None:
        """End the one of this name, if it lives, for good."""
        with suppress(ValueError):
            ray.kill(self.find(name))

    def group(self, name: str) -> PlacementGroup:
        """The placement group of this name. Raises ValueError when there is none."""
        return ray.util.get_placement_group(self.full_name(name))

    def release(self, name: str) -> None:
        """Free what the placement group of this name holds, if there is one."""
        with suppress(ValueError):
            remove_placement_group(self.group(name))


def own_node() -> dict[str, Any]:
    own = ray.get_runtime_context().get_node_id()
    found: dict[str, Any] = next(node for node in ray.nodes() if node["NodeID"] == own)
    return found


def has_cpus(node: dict[str, Any]) -> bool:
    return bool(node["Resources"].get("CPU", 0) > 0)
