"""`python -m tests.support.lose_nodes FOLDER`: the node of a fleet's only actor is lost again and again. Then the actor
itself is killed again and again.

Writes told.json in FOLDER, because Ray prints too: the causes that the fleet reports for the deaths with a node, the
causes for the other deaths, and the error that the fleet raised.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from actors.actor import ActorSpec, Assignment
from actors.deaths import MOST_DEATHS_IN_A_ROW
from actors.fleet import Fleet, FleetFailed, Limits
from learner.agents.catalogue import acting
from learner.networks.spec import NetworkSpec

NODE = {"num_cpus": 1, "resources": {"there": 1}, "object_store_memory": 80_000_000}


class Idle:
    """An actor that is never ready to collect."""

    def placed(self) -> tuple[str, int]:
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def build(self) -> None:
        time.sleep(1000)


def main(folder: Path) -> None:
    """Run the fleet and write told.json. FOLDER needs a short path: Ray's sockets have a limit of 107 bytes."""
    os.environ |= {"RAY_TMPDIR": str(folder / "ray"), "RAY_AUTH_MODE": "disabled"}
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    (folder / "ray" / "ray").mkdir(parents=True)
    head = {"num_cpus": 0, "object_store_memory": 80_000_000, "dashboard_port": None}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node = cluster.add_node(**NODE)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    fleet = Fleet(
        [Assignment("dmc", 0, (0,))],
        0,
        lambda one, incarnation: ActorSpec(
            name=one.name,
            index=0,
            tasks=(),
            copies=1,
            first_copy=0,
            observation_size=1,
            action_size=1,
            segment_length=1,
            discount=0.99,
            seed=0,
            acting=acting(NetworkSpec(observation_size=1, action_size=1, num_tasks=1)),
        ),
        lambda _: ray.remote(Idle).options(resources={"there": 1}).remote(),
        {"dmc": Limits(60.0, 1e12)},
    )

    def is_placed() -> None:
        while fleet.slots[0].placed is not None:
            fleet.poll()
            time.sleep(0.05)

    def dies() -> str:
        while not (deaths := fleet.poll().deaths):
            time.sleep(0.05)
        return deaths[0].cause

    with_node, by_itself, raised = [], [], ""
    for _ in range(MOST_DEATHS_IN_A_ROW):
        is_placed()
        cluster.remove_node(node, allow_graceful=False)
        node = cluster.add_node(**NODE)
        with_node.append(dies())
    try:
        while True:
            is_placed()
            ray.kill(fleet.slots[0].handle)
            by_itself.append(dies())
    except FleetFailed as error:
        raised = str(error)
    (folder / "told.json").write_text(json.dumps([with_node, by_itself, raised]))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
