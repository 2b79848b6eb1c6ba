"""Ray processes of a run: their names, by which a coordinator finds living processes, and their placement.

All are detached: they outlive the coordinator that started them and its node, the head of a cluster.
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
LEAST = 0.001  # amount of a resource that is enough for placement


def resource(role: str) -> str:
    """Return the Ray resource of a role. Each node for the role declares 1000 of it."""
    return f"brc-{role}"


class Parts:
    """Processes of one run.

    Args:
        run: a name that no other run ever has.
        roles: roles with dedicated nodes. Parts of other roles go to nodes with CPUs: to the coordinator's node if it
            has CPUs, as on a single machine.
    """

    def __init__(self, run: str, roles: Sequence[str] = ()) -> None:
        self.run = run
        self.roles = tuple(roles)

    def named(self, name: str) -> dict[str, Any]:
        """Return the options of the Ray actor of this name."""
        return {"name": self.full_name(name), "namespace": NAMESPACE, "lifetime": "detached"}

    def full_name(self, name: str) -> str:
        return f"{self.run}/{name}"

    def alive(self) -> list[str]:
        """Return the names of parts that live or that Ray is restarting."""
        prefix = f"{self.run}/"
        found = ray.util.list_named_actors(all_namespaces=True)
        names = [one["name"] for one in found if one["namespace"] == NAMESPACE]
        return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))

    def find(self, name: str) -> ActorHandle:
        """Return the living part of this name. Raises ValueError when there is none."""
        return ray.get_actor(self.full_name(name), namespace=NAMESPACE)

    def place(self, role: Role) -> dict[str, Any]:
        """Return options that place a Ray actor on a node for its role."""
        if role in self.roles:
            return {"resources": {resource(role): LEAST}}
        return on_node() if has_cpus(own_node()) else {"num_cpus": LEAST}

    def nodes(self, role: Role) -> list[str]:
        """Return the ids of all nodes for a role, this process's node first. May be empty while a cluster starts."""
        wanted = resource(role) if role in self.roles else "CPU"
        own = ray.get_runtime_context().get_node_id()
        found = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get(wanted, 0) > 0]
        return sorted(found, key=lambda node: (node != own, node))

    def end(self) -> None:
        """End all living parts and free their placement groups."""
        for name in self.alive():
            self.kill(name)
        for group in self.groups():
            self.release(group)

    def groups(self) -> list[str]:
        """Return the names of the run's placement groups."""
        prefix = f"{self.run}/"
        names = [group["name"] for group in placement_group_table().values() if group["state"] != "REMOVED"]
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    def kill(self, name: str) -> None:
        """End the part of this name for good, if it lives."""
        with suppress(ValueError):
            ray.kill(self.find(name))

    def group(self, name: str) -> PlacementGroup:
        """Return the placement group of this name. Raises ValueError when there is none."""
        return ray.util.get_placement_group(self.full_name(name))

    def release(self, name: str) -> None:
        """Free the resources of the placement group of this name, if there is one."""
        with suppress(ValueError):
            remove_placement_group(self.group(name))


def own_node() -> dict[str, Any]:
    own = ray.get_runtime_context().get_node_id()
    found: dict[str, Any] = next(node for node in ray.nodes() if node["NodeID"] == own)
    return found


def has_cpus(node: dict[str, Any]) -> bool:
    return bool(node["Resources"].get("CPU", 0) > 0)
