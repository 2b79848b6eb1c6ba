"""Nodes of a cluster: their roles and resources, and checks by a task on each node before a run begins."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.backend.parts import ROLES, Parts, Role, resource
from cluster.errors import ConfigError
from cluster.plan.plan import Plan
from cluster.preflight.machine import Machine
from replay.store.locations import free_bytes, is_shared_memory, node_memory, shared_folder
from replay.urls import is_local, open_url

PATIENCE_S = 900.0  # time for nodes of a role to join: cloud machines may take minutes
ANSWER_S = 120.0  # time for all nodes to answer


class Node(NamedTuple):
    """Answer of a node: its free space, and whether it sees the files that this process wrote."""

    host: str
    memory: int  # bytes available
    shared: int  # bytes free where shards' files go
    in_memory: bool  # whether shards' files go to memory
    sees: list[bool]  # for each probe file, whether the node sees it


def declared_roles() -> tuple[Role, ...]:
    """Return the roles with dedicated nodes, from the head's BRC_ROLES. Raises ConfigError for an unknown role."""
    named = [name for name in os.environ.get("BRC_ROLES", "").split(",") if name]
    for name in named:
        if name not in ROLES:
            raise ConfigError(f"BRC_ROLES has {name!r}; there are {', '.join(ROLES)}")
    return tuple(role for role in ROLES if role in named)


def wait_for_nodes(parts: Parts, say: Callable[[str], None]) -> None:
    """Wait until there is a node for every role. Raises ConfigError if one is missing after PATIENCE_S."""
    deadline, told = time.monotonic() + PATIENCE_S, False
    for role in ROLES:
        if role == "actors" and role in parts.roles:
            continue  # an autoscaler adds machines only once actors wait for room
        while not parts.nodes(role):
            what = resource(role) if role in parts.roles else "CPUs"
            if not told:
                say(f"waiting for a node with {what} to join the cluster")
                told = True
            if time.monotonic() > deadline:
                raise ConfigError(f"no node with {what} has joined the cluster within {PATIENCE_S:.0f} s")
            time.sleep(1.0)


def cluster_machine(parts: Parts) -> Machine:
    """Return the resources of all present nodes as one machine."""
    return Machine("this cluster", int(total(parts, "learner", "GPU")), is_cluster=True)


def total(parts: Parts, role: Role, resource: str) -> float:
    """Return the sum of a resource over all nodes for a role."""
    wanted = set(parts.nodes(role))
    return float(sum(node["Resources"].get(resource, 0) for node in ray.nodes() if node["NodeID"] in wanted))


def learner_cores(parts: Parts) -> int:
    """Return the CPUs of one learner node, on average; 0 if the learner has no dedicated nodes."""
    nodes = len(parts.nodes("learner")) if "learner" in parts.roles else 0
    return int(total(parts, "learner", "CPU") / nodes) if nodes else 0


def check_nodes(plan: Plan, parts: Parts) -> None:
    """Raise ConfigError if shards lack room on their nodes, or if a node does not see a folder for checkpoints."""
    folders = {flag: url for flag, url in stores(plan).items() if is_folder(url)}
    probe = f"probe-{uuid.uuid4().hex}"
    for folder in folders.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / probe).write_text("seen by every node that is to write here")
    try:
        wanted = [str(Path(folder) / probe) for folder in folders.values()]
        shards = parts.nodes("replay")
        nodes = list(dict.fromkeys([*shards, *parts.nodes("learner")]))
        found = ask(nodes, wanted, plan.config.replay.directory)
    finally:
        for folder in folders.values():
            (Path(folder) / probe).unlink(missing_ok=True)  # two options may name one folder
    for node in found.values():
        for (flag, folder), sees in zip(folders.items(), node.sees, strict=True):
            if not sees:
                raise ConfigError(
                    f"{flag} {folder}: node {node.host} does not see what is written there: name a folder that all "
                    "nodes share, or a URL such as s3://bucket/folder"
                )
    taken = dict.fromkeys(shards, 0)
    for spec in () if plan.config.resume else plan.shards:  # a resumed run's files may already take this room
        node_id = shards[spec.index % len(shards)]
        taken[node_id] += spec.storage.nbytes
        node = found[node_id]
        room = min(node.shared, node.memory) if node.in_memory else node.shared
        if taken[node_id] > room:
            raise ConfigError(
                f"--replay.capacity {plan.config.replay.capacity} of {len(plan.tasks)} tasks needs "
                f"{taken[node_id]:,} bytes on node {node.host}, which has {room:,}: lower it, or have more "
                f"--replay.shards on more nodes"
            )


def stores(plan: Plan) -> dict[str, str]:
    """Return the options that say where a run's checkpoints go, with their values; the default is the runs' folder."""
    config = plan.config
    return {
        "--learner.checkpoints": config.learner.checkpoints or config.runs_folder,
        "--replay.snapshots": config.replay.snapshots or config.runs_folder,
    }


def is_folder(url: str) -> bool:
    return is_local(open_url(url)[0])


def ask(nodes: Sequence[str], wanted: list[str], directory: str) -> dict[str, Node]:
    answers = {}
    for node in nodes:
        place = NodeAffinitySchedulingStrategy(node, soft=False)
        answers[node] = look.options(num_cpus=0, memory=1, scheduling_strategy=place).remote(wanted, directory)
    try:
        return dict(zip(answers, ray.get(list(answers.values()), timeout=ANSWER_S), strict=True))
    except ray.exceptions.GetTimeoutError as error:
        raise ConfigError(f"not all of {len(nodes)} nodes have answered within {ANSWER_S:.0f} s") from error


@ray.remote(max_retries=3)  # type: ignore[untyped-decorator]
def look(wanted: list[str], directory: str) -> Any:
    """Return this node's answer as a Node."""
    place = Path(directory) if directory else shared_folder()
    return Node(
        ray.util.get_node_ip_address(),
        node_memory()[0],
        free_bytes(place),
        is_shared_memory(place),
        [os.path.exists(path) for path in wanted],
    )
