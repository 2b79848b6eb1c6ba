"""`python -m tests.support.lose_a_node FOLDER`: a run on three Ray nodes of one machine loses one of the nodes.

The head has the learner and a shard. The two other nodes have a shard each, and the actors. One of these two is removed
without notice after the run has written a checkpoint and passed 2500 steps. Exits with 0 if the run completes.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from cluster.backend.parts import Parts
from cluster.preflight.validation import validate
from cluster.run.folder import open_run
from cluster.run.replay_plan import live_folder
from cluster.run.session import Session
from cluster.supervise.coordinator import Coordinator
from dashboards.events import Finished, Stopped
from dashboards.sinks import records
from dashboards.sinks.console import Console
from tests.support import tiny


def main(folder: Path) -> bool:
    """Return whether the run completed. FOLDER must have a short path: Ray's sockets have a limit of 107 bytes."""
    os.environ["RAY_TMPDIR"] = str(folder / "ray")
    os.environ["RAY_AUTH_MODE"] = "disabled"
    (folder / "ray" / "ray").mkdir(parents=True)
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 200_000_000, "dashboard_port": None}
    )
    workers = [cluster.add_node(num_cpus=2, object_store_memory=150_000_000) for _ in range(2)]
    ray.init(address=cluster.address, logging_level="WARNING", log_to_driver=False)
    base = tiny.config()
    config = tiny.config(
        runs_folder=str(folder / "runs"),
        name="a",
        execution="distributed",
        tasks=("dmc/cartpole-swingup", "dmc/cheetah-run"),
        steps=7000,
        checkpoint_interval=1500,
        report_interval=0.5,
        replay=type(base.replay)(capacity=20_000, warmup=300, shards=3),
        actors=type(base.actors)(count=4, copies=2, cpus=1.0),
    )
    plan = validate(config)
    with open_run(plan, "quickstart") as run, Console([task.name for task in plan.tasks], config.steps) as console:
        session = Session(plan, run, console)
        parts = Parts(run.id)
        nodes = parts.nodes("replay")
        live = live_folder(plan, run)

        def lose() -> None:
            while not any(row["env_steps"] > 2500 for row in records.read(run.path / "metrics.jsonl")) or not any(
                row["event"] == "checkpoint" for row in records.read(run.path / "events.jsonl")
            ):
                time.sleep(0.1)
            shard = nodes.index(workers[1].node_id)
            (folder / "removed").write_text(str(time.time()))
            cluster.remove_node(workers[1], allow_graceful=False)
            shutil.rmtree(live / f"shard-{shard}")  # the shard's files were on that node

        threading.Thread(target=lose, daemon=True).start()
        completed = Coordinator(plan, session, live, "cpu", parts).run()
        session.ended(Finished() if completed else Stopped())
        session.close()
    ray.shutdown()
    cluster.shutdown()
    return completed


if __name__ == "__main__":
    sys.exit(not main(Path(sys.argv[1])))
