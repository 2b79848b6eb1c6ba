"""Tests of runs on a cluster: a coordinator may die at any time, and a command may be given twice."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cluster.backend.nodes import declared_roles
from cluster.cli import main as cli
from cluster.deploy.remote import described
from cluster.errors import ConfigError
from tests.support import tiny
from tests.support.live import (
    assert_whole,
    command_line,
    events,
    free_port,
    live,
    relatives,
    wait_for,
    wait_for_steps,
    wait_until,
)


@dataclass
class Cluster:
    """A cluster of one node, as `cluster/deploy/node.sh head` would start it, with CPUs."""

    folder: Path
    process: subprocess.Popen[bytes]

    def part(self, kind: str) -> psutil.Process:
        """Return the Ray process of one part of a run."""
        found: psutil.Process = wait_until(
            lambda: next((p for p in relatives(self.process.pid) if f"ray::{kind}" in command_line(p)), None)
        )
        return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with (
        tempfile.TemporaryDirectory(prefix="brc-", ignore_cleanup_errors=True) as path,
        pytest.MonkeyPatch.context() as m,
    ):
        yield from running(Path(path), m)


def running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    (folder / "home").mkdir()
    token = folder / "home" / "token"
    token.write_text("0123456789abcdef" * 4)
    port = free_port()
    for name, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "BRC_HOME": str(folder),
        "HOME": str(folder / "home"),
    }.items():
        monkeypatch.setenv(name, value)
    options = ["--num-cpus=4", "--object-store-memory=150000000", "--include-dashboard=false", f"--port={port}"]
    options += [f"--temp-dir={folder}/ray", f"--ray-client-server-port={free_port()}", "--node-ip-address=127.0.0.1"]
    with (folder / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *options],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "--block" in (folder / "ray.log").read_text() or process.poll() is not None)
        assert process.poll() is None, (folder / "ray.log").read_text()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        yield Cluster(folder, process)
    finally:
        for part in [*relatives(process.pid), psutil.Process(process.pid)]:
            part.kill()
        process.wait()


def test_a_killed_coordinator_comes_back_and_finds_everything_as_it_was(cluster: Cluster) -> None:
    """Shards, learner and actors stay the same processes, no work is repeated or left out, and the follower stays."""
    folder = cluster.folder
    options = ["--steps=7100", "--checkpoint-interval=1000", "--replay.shards=2", "--actors.cpus=0.5"]
    with live(folder, "a", *options) as follower:
        wait_for(follower, lambda: events(folder, "a", "checkpoint"))
        kinds = ("ShardProcess", "LearnerProcess", "ActorProcess", "PolicyStore")
        parts = [cluster.part(kind) for kind in kinds]
        first = cluster.part("CoordinatorProcess")
        first.kill()
        second = subprocess.run(tiny.train_command(folder, "a", *options[1:]), capture_output=True, text=True)
        assert second.returncode == 2
        assert "run a is live with another --steps: choose another --name" in second.stderr, second.stderr
        wait_for(follower, lambda: events(folder, "a", "coordinator_back"))
        assert cluster.part("CoordinatorProcess").pid != first.pid
        row = wait_for_steps(follower, folder, "a", 2200)
        assert row["updates"] > 0
        assert [part.pid for part in parts if part.is_running()] == [cluster.part(kind).pid for kind in kinds]
        also = subprocess.Popen(tiny.train_command(folder, "a", *options), stdout=subprocess.PIPE, text=True)
        assert also.stdout is not None and "this follows it" in also.stdout.readline()
        also.send_signal(signal.SIGINT)
        also.communicate(timeout=60)
        output, _ = follower.communicate(timeout=180)
        assert follower.returncode == 0, output
    assert "the coordinator died and is back" in output and "everything in" in output
    assert_whole(folder, "a", 7100)
    assert not events(folder, "a", "actor_died") and not events(folder, "a", "shard_died")
    assert not events(folder, "a", "learner_died")
    rows = tiny.rows(folder, "a", "metrics")
    for before, after in itertools.pairwise(rows):
        assert (after["env_steps"], after["updates"]) >= (before["env_steps"], before["updates"])
    wait_until(lambda: not any("Process" in command_line(part) for part in relatives(cluster.process.pid)))


@pytest.mark.long
def test_a_run_is_stopped_and_resumed_from_afar(cluster: Cluster) -> None:
    """The follower may leave. `brc stop` and `brc logs` are other processes."""
    folder = cluster.folder
    with live(folder, "b", "--steps=8000", "--actors.cpus=0.5") as follower:
        wait_for_steps(follower, folder, "b", 600)
        follower.send_signal(signal.SIGINT)
        follower.wait()
    runs = f"--runs-folder={folder}/runs"
    said = subprocess.run(tiny.command(["stop", runs]), capture_output=True, text=True)
    assert said.stdout == "run b has stopped\n", said.stdout + said.stderr
    assert events(folder, "b", "stopped")
    logs = subprocess.run(tiny.command(["logs", "b", runs]), capture_output=True, text=True)
    assert logs.returncode == 130 and "go on with:" in logs.stdout
    with live(folder, "b", "--steps=8000", "--actors.cpus=0.5", "--resume") as follower:
        assert follower.wait(timeout=180) == 0
    assert_whole(folder, "b", 8000)


@pytest.mark.parametrize(
    ("variables", "options", "complaint"),
    [
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, [], "this cluster does not let us in"),
        ({}, ["--learner.device=cuda"], "--learner.device cuda: this cluster has no NVIDIA GPU"),
        ({}, ["--wandb=team/my:project"], "--wandb 'team/my:project' is not a project"),
        ({}, ["--replay.capacity=4000000000"], "lower it, or have more --replay.shards on more nodes"),
    ],
)
def test_what_cannot_work_there_is_refused(
    cluster: Cluster, variables: dict[str, str], options: list[str], complaint: str
) -> None:
    done = subprocess.run(
        tiny.train_command(cluster.folder, "c", *options), capture_output=True, text=True, env=os.environ | variables
    )
    assert done.returncode == 2 and complaint in done.stderr, done.stderr
    assert not (cluster.folder / "runs" / "c" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("variables", "options", "complaint"),
    [
        ({"RAY_ADDRESS": "http://10.0.0.1:8265"}, [], "is where jobs are sent: use `brc remote train`"),
        ({"RAY_AUTH_MODE": "disabled"}, [], "RAY_AUTH_MODE is not token"),
        ({}, ["--execution=serial"], "--execution serial is for one process"),
        ({"BRC_REDIS": "127.0.0.1:1", "BRC_REDIS_PASSWORD": "x"}, [], "Redis at 127.0.0.1:1 cannot be reached"),
        ({"BRC_REDIS": "127.0.0.1:1", "BRC_REDIS_PASSWORD": ""}, [], "BRC_REDIS is named, but no password"),
    ],
)
def test_what_needs_no_cluster_to_be_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    variables: dict[str, str],
    options: list[str],
    complaint: str,
) -> None:
    there = {"RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
    for name, value in (there | variables).items():
        monkeypatch.setenv(name, value)
    assert cli.main(tiny.train_command(tmp_path, "a", *options)[3:]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_roles_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRC_ROLES", "learner,actor")
    with pytest.raises(ConfigError, match="BRC_ROLES has 'actor'; there are learner, replay, actors"):
        declared_roles()
    monkeypatch.setenv("BRC_ROLES", "actors,learner")
    assert declared_roles() == ("learner", "actors")


ROOT = Path(__file__).parents[2]


NO_CLUSTERS = {
    "empty": "",
    "list": "- a\n",
    "compose": "services: {}\n",
    "text": "provider: local\n",
    "bare": "provider: {type: local}\n",
    "binary": "\0",
}


@pytest.mark.parametrize("text", NO_CLUSTERS.values(), ids=NO_CLUSTERS.keys())
def test_what_describes_no_cluster_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(text)
    for found in (file, tmp_path):  # the second is a folder
        with pytest.raises(ConfigError, match="is not what `ray up` takes"):
            described(found)


@pytest.mark.parametrize(
    ("description", "code", "said"),
    [
        ("nowhere.yaml", 2, "CLUSTER nowhere.yaml is not there: name the file that `ray up` was given"),
        (str(ROOT / "cluster" / "deploy" / "kuberay.yaml"), 2, "is not what `ray up` takes"),
        (str(ROOT / "cluster.yaml"), 0, "quickstart"),  # there is no account here, so no cluster
    ],
)
def test_a_command_runs_here_when_no_cluster_is_up(tmp_path: Path, description: str, code: int, said: str) -> None:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
    mine |= {"HOME": str(tmp_path), "CLUSTER": description, "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(tiny.command(["remote", "presets"]), capture_output=True, text=True, env=mine)
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
