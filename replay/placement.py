"""Options that decide on which node Ray starts a process."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def on_node(node_id: str = "") -> dict[str, Any]:
    """Return options that place a Ray actor on a node, by default this process's, as long as that node exists.

    Ray ignores the node of an actor that requests no resources at all, so the options request one byte of memory.
    """
    node_id = node_id or ray.get_runtime_context().get_node_id()
    return {"memory": 1, "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=True)}
