"""Where Ray starts a process."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def on_node(node_id: str = "") -> dict[str, Any]:
    """Options of an actor that is to live on a node, by default this process's, for as long as there is that node.

    Ray heeds this for actors that ask for something: one that needs no CPU, and nothing else, goes to any node. So this
    asks for a byte of memory.
    """
    node_id = node_id or ray.get_runtime_context().get_node_id()
    return {"memory": 1, "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=True)}
