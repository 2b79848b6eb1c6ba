"""Test of a cluster on hosts of this machine, from `make up` to `make down`: `python -m tests.cluster.prove FOLDER`.

The hosts are an operator, a head, two workers, and a host with Redis and an S3 server. A run of two tasks with two
shards is launched, scaled, followed, stopped, and resumed to its end. Meanwhile each part of the system is lost once.
The program prints a JSON line for each step, with its seconds, and exits with 1 when a check fails. It needs root, and
all that fakehosts.sh and Redis need. The hosts keep their state in FOLDER, whose path must be short.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dashboards.sinks import records
from tests.cluster.hosts import BUCKET, REDIS, ROOT, S3, Hosts, description, tell
from tests.support.live import wait_until
from tests.support.usual_signals import give_children_the_usual_signals

RUN = "proof"
TRAIN = [
    f"--name={RUN}",
    "--tasks",
    "dmc/cartpole-swingup",
    "dmc/cheetah-run",
    "--steps=1000000",
    "--learner.width=32",
    "--learner.policy-width=32",
    "--learner.batch-size=64",
    "--learner.updates-per-step=0.25",
    "--learner.threads=1",
    "--actors.copies=4",
    "--actors.count=2",
    "--actors.cpus=0.5",
    "--replay.capacity=60000",
    "--replay.warmup=1000",
    "--replay.shards=2",
    "--checkpoint-interval=3000",
    "--evaluation.interval=5000",
    "--evaluation.episodes=1",
    "--report-interval=0.5",
]
CLUSTER = "/root/cluster.yaml"
PATIENCE_S = 400.0


class Proof:
    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.began = time.monotonic()
        self.run_folder = hosts.file("head", f"/root/.brc/runs/{RUN}")

    def make(self, *words: str, check: bool = True, timeout: float = 400.0) -> str:
        started = time.monotonic()
        said = self.hosts.run("op", f"make {shlex.join([*words, f'CLUSTER={CLUSTER}'])}", check=check, timeout=timeout)
        tell(f"make {words[0]}", seconds=round(time.monotonic() - started, 1))
        return said

    def metrics(self) -> list[dict[str, Any]]:
        return records.read(self.run_folder / "metrics.jsonl")

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in records.read(self.run_folder / "events.jsonl") if row["event"] == kind]

    def inserts(self) -> list[int]:
        """Return the inserts of each shard, for its task with the most. A shard that was away has fewer."""
        line = "redis-cli -p 6380 -a $(cat ~/.brc/redis_password) --no-auth-warning hget brc:run:proof kept"
        state = json.loads(self.hosts.run("store", line).splitlines()[-1])
        return [max(shard["inserts_by_task"]) for shard in state["shards"]]

    def trains(self, since: float) -> dict[str, Any] | None:
        """Return a row after the time `since` with more steps and updates than the first row after it; None so far."""
        after = [row for row in self.metrics() if row["time"] > since]
        return next(
            (row for row in after if row["env_steps"] > after[0]["env_steps"] and row["updates"] > after[0]["updates"]),
            None,
        )

    def recovers(self, what: str, fault: Callable[[], float], **more: Any) -> None:
        """Cause a fault, then wait until training goes on by itself. `fault` returns the time at which it was over."""
        before = self.metrics()[-1]
        over = fault()
        row = wait_until(lambda: self.trains(over), PATIENCE_S, f"training after: {what}")
        lost = sum(event["lost"] for event in self.events("shard_back") if event["time"] > before["time"])
        tell(
            what,
            recovered_s=round(row["time"] - over, 1),
            steps=[before["env_steps"], row["env_steps"]],
            updates=[before["updates"], row["updates"]],
            transitions_lost=lost,
            actors=row["actors"],
            **more,
        )
        time.sleep(8.0)

    def bring_up(self) -> None:
        hosts = self.hosts
        description(hosts.file("op", CLUSTER))
        self.make("secrets")
        hosts.run("op", "scp -q -r -o StrictHostKeyChecking=no -i ~/.ssh/id_fakehosts ~/.brc root@10.77.0.4:")
        hosts.run("store", f"BRC_REDIS={REDIS} cluster/deploy/node.sh redis")
        hosts.start("store", "moto_server -H 0.0.0.0 -p 5000", hosts.folder / "moto.log")
        wait_until(
            lambda: "200" in hosts.run("store", f"curl -s -o /dev/null -w '%{{http_code}}' {S3}/", check=False),
            60,
            "S3",
        )
        hosts.run("store", f"curl -s -X PUT {S3}/{BUCKET}")
        self.make("up")

    def launch(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        line = (
            f"make launch-train PRESET=quickstart CLUSTER={CLUSTER} ARGS={shlex.join([shlex.join([*TRAIN, *options])])}"
        )
        return self.hosts.start("op", line, self.hosts.folder / f"{name}.log")

    def workers(self) -> dict[str, str]:
        """Return the hosts of the first shard and of the learner, by the name of their processes."""
        found: dict[str, str] = {}
        for host in ("w1", "w2"):
            for line in self.hosts.processes(host):
                if "ray::Shard" in line or "ray::Learner" in line:
                    found.setdefault(line.split("ray::")[1].split(".")[0], host)
        return found

    def tunnels(self) -> list[str]:
        """Return the shells that followers hold open on the head."""
        return [line for line in self.hosts.processes("head") if "sh -c while true; do sleep 86400" in line]

    def follow_and_end(self, number: str) -> None:
        """End a second follower by a signal. Its tunnel must end with it, and that of the first follower must stay."""
        second = self.launch(f"second-{number}")
        log = self.hosts.folder / f"second-{number}.log"
        wait_until(lambda: "this follows it" in log.read_text(), 120.0, "the second to follow")
        # A host's shell gives each command a process group, so the signal goes to the newest follower by name.
        self.hosts.run("op", f"pkill -{number} -n -f '[b]in/brc remote train'")
        second.wait(timeout=60)
        wait_until(lambda: len(self.tunnels()) == 1, 60.0, f"the tunnel of who was ended by SIG{number} to end")

    def kill_coordinator(self) -> float:
        self.hosts.run("head", "pkill -9 -f ray::Coordinator")
        return time.time()

    def kill_head(self) -> float:
        """Kill every process of the head but its supervisor. That is suspended, so that it restarts nothing."""
        keep = "kill -STOP -- -$(cat ~/.brc/head.pid); pkill -9 -f 'ray|gcs_server|dashboard|monitor'"
        self.hosts.run("head", keep, check=False)
        time.sleep(15.0)
        self.hosts.run("head", "kill -CONT -- -$(cat ~/.brc/head.pid)")
        return time.time()

    def kill_redis(self) -> float:
        """Kill Redis. It holds the head's tables, so the head ends within seconds too. Both come back by themselves."""
        self.hosts.run("store", "pkill -9 redis-server")
        time.sleep(10.0)
        return time.time()

    def cut(self, host: str, seconds: float) -> float:
        self.hosts.cut(host)
        time.sleep(seconds)
        self.hosts.mend(host)
        return time.time()

    def lose(self, host: str) -> float:
        self.hosts.kill(host)
        return time.time()

    def prove(self) -> None:
        hosts = self.hosts
        self.bring_up()
        started = time.time()
        follower = self.launch("launch")
        row = wait_until(lambda: self.trains(started), PATIENCE_S, "training")
        tell("make launch-train", until_it_trains_s=round(row["time"] - started, 1))
        nodes = {event["node"] for event in self.events("shard_began")}
        acting = {host for host in ("w1", "w2") if any("ray::Actor" in line for line in hosts.processes(host))}
        tell("parts", shards_on_nodes=len(nodes), actors_on=sorted(acting), where=self.workers())
        assert len(nodes) == 2, nodes
        for count in (6, 3, 4):
            said = self.make("scale", "BENCHMARK=dmc", f"ACTORS={count}")
            assert f"of {count} actors" in said, said
        said = self.make("status", f"RUN={RUN}")
        assert "live" in said and "checkpoint" in said, said
        again = hosts.run("op", f"make launch-train CLUSTER={CLUSTER} ARGS='--name {RUN}'", check=False)
        assert "is live with another" in again, again
        for number in ("INT", "TERM", "KILL"):
            self.follow_and_end(number)
        tell("two of one name", other_options="refused", same_options="followed")
        self.recovers("coordinator killed", self.kill_coordinator)
        self.recovers("head: every process killed for 15 s", self.kill_head)
        self.recovers("redis killed", self.kill_redis)
        shard_host = self.workers()["ShardProcess"]
        self.recovers(f"worker {shard_host} cut off for 40 s", lambda: self.cut(shard_host, 40.0))
        shard_host = self.workers()["ShardProcess"]  # the shard may have moved
        lost = time.time()
        self.recovers(f"worker {shard_host} lost, with a shard", lambda: self.lose(shard_host))
        back = wait_until(
            lambda: [event for event in self.events("shard_back") if event["time"] > lost], PATIENCE_S, "it to be back"
        )[0]
        written = [event for event in self.events("checkpoint") if event["time"] < back["time"]][-1]
        tell("its shard", back_after_s=round(back["seconds"], 1), lost=back["lost"], snapshot_at=written["env_steps"])
        assert back["origin"].startswith("snapshot"), back
        # The snapshot holds the inserts before it began. They are of all tasks, some of which may be far ahead.
        inserts = [
            [row["shards"][back["shard"]]["inserts"] for row in self.metrics() if row["time"] < at][-1]
            for at in (written["time"] - written["seconds"], back["time"])
        ]
        assert back["lost"] <= inserts[1] - inserts[0], (back, written, inserts)
        hosts.again(shard_host)
        assert len(self.events("coordinator_back")) >= 3, self.events("coordinator_back")
        self.make("stop", f"RUN={RUN}")
        follower.wait(timeout=60)
        self.check_monotonic()
        left = {
            host: [line for line in hosts.processes(host) if "ray::" in line and "IDLE" not in line]
            for host in ("head", "w1", "w2")
            if host != shard_host
        }
        tell("after make stop", left=left)
        (page,) = [line for line in self.make("report", f"RUN={RUN}").split() if line.endswith("/report.html")]
        hosts.run("op", f".venv/bin/ray rsync-down {CLUSTER} {page} /root/report.html")
        assert "dmc/cartpole-swingup" in hosts.file("op", "/root/report.html").read_text()
        steps = 2 * max(self.inserts()) + 2000  # so that no shard has more than half of the budget yet
        ended = self.launch("resume", "--resume", f"--steps={steps}")
        assert ended.wait(timeout=900) == 0, (hosts.folder / "resume.log").read_text()[-3000:]
        last = self.metrics()[-1]
        tell("resumed to its end", steps=last["env_steps"], updates=last["updates"], ratio=last["samples_per_insert"])
        assert last["env_steps"] == steps and last["updates"] == (steps - 1000) // 4, last["updates"]
        assert abs(last["samples_per_insert"] / last["samples_per_insert_target"] - 1) < 0.02
        # A shell that a follower leaves behind when its operator loses the network.
        hosts.start("head", "bash -c 'while true; do sleep 86400; done'", hosts.folder / "lost-tunnel.log")
        wait_until(self.tunnels, 30.0, "a lost tunnel")
        self.make("down")
        left = {host: hosts.processes(host) for host in ("head", "w1", "w2")}
        tell("after make down", left=left, total_s=round(time.monotonic() - self.began))
        assert not any(left.values()), left

    def check_monotonic(self) -> None:
        for earlier, later in zip(self.metrics(), self.metrics()[1:], strict=False):
            assert later["env_steps"] >= earlier["env_steps"], (earlier, later)
            steps = zip(earlier["env_steps_by_task"].values(), later["env_steps_by_task"].values(), strict=True)
            assert all(after >= before for before, after in steps)


def main(folder: Path) -> None:
    assert ROOT.exists()
    with Hosts(folder) as hosts:
        try:
            Proof(hosts).prove()
        except BaseException:
            for part in hosts.state(RUN):
                print(part, file=sys.stderr)
            raise


if __name__ == "__main__":
    give_children_the_usual_signals()
    main(Path(sys.argv[1]))
