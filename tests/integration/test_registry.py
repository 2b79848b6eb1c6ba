"""Tests of the registry and its leases: files on one machine and a real Redis behave alike."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from cluster.preflight.validation import validate
from cluster.run.folder import open_run
from cluster.run.kept import Kept
from cluster.run.presence import Presence
from cluster.run.registry import (
    FileRegistry,
    LeaseLost,
    RedisRegistry,
    Registry,
    RegistryAway,
    find_registry,
    known_run,
)
from cluster.run.stop import Stop
from dashboards.progress import ProgressState
from tests.support import tiny
from tests.support.live import free_port, wait_until
from tests.support.rows import shard_stats

SECRET = "a-password"


class Server:
    """A Redis server of one test. It can be killed, and started again with its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--port", str(self.port), "--dir", str(self.folder), "--appendonly", "yes", "--requirepass", SECRET]
        self.process = subprocess.Popen(["redis-server", "--bind", "127.0.0.1", *options], stdout=subprocess.DEVNULL)
        registry = RedisRegistry(self.address, SECRET)
        wait_until(lambda: reachable(registry))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def reachable(registry: Registry) -> bool:
    try:
        registry.names()
    except RegistryAway:
        return False
    return True


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server")
    (tmp_path / "redis").mkdir()
    found = Server(tmp_path / "redis")
    yield found
    found.kill()


@pytest.fixture(params=["files", "redis"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    for run in ("a", "b"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "config.yaml").write_text("")
    if request.param == "files":
        return FileRegistry(tmp_path / "runs")
    return RedisRegistry(request.getfixturevalue("server").address, SECRET)


def test_what_is_written_is_read(registry: Registry) -> None:
    assert registry.read("a").state == ""
    registry.write("a", state="running", desired='{"dmc": 2}')
    registry.write("a", desired='{"dmc": 3}')
    registry.write("b", state="finished")
    assert registry.names() == ["a", "b"]
    found = registry.read("a")
    assert (found.state, found.desired, found.wish) == ("running", '{"dmc": 3}', "")


def test_a_lease_is_one_coordinators_and_goes_when_it_is_given_up(registry: Registry) -> None:
    assert registry.owner("a") == ""
    lease = registry.lease("a")
    assert registry.owner("a").startswith("process ")
    with pytest.raises(ConfigError, match=r"run a is live \(process \d+ on .*\): choose another --name"):
        registry.lease("a")
    registry.lease("b").release()
    lease.renew()
    lease.release()
    assert registry.owner("a") == ""
    registry.lease("a").release()


def test_the_one_live_run_need_not_be_named(registry: Registry) -> None:
    registry.write("a", state="finished")
    registry.write("b", state="running")
    with pytest.raises(ConfigError, match="name a run: a, b"):
        known_run(registry, "")
    lease = registry.lease("b")
    assert known_run(registry, "") == "b"
    assert known_run(registry, "a") == "a"
    with pytest.raises(ConfigError, match="there is no run 'c'"):
        known_run(registry, "c")
    lease.release()


HOLD = """
import sys, time
from cluster.run.registry import RedisRegistry
lease = RedisRegistry(sys.argv[1], sys.argv[2]).lease("a")
print("held", flush=True)
time.sleep(600)
"""


def test_the_lease_of_a_process_that_was_killed_here_is_free_at_once(server: Server) -> None:
    registry = RedisRegistry(server.address, SECRET)
    command = [sys.executable, "-c", HOLD, server.address, SECRET]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"process {holder.pid} on"):
            registry.lease("a")
        holder.kill()
        holder.wait()
        registry.lease("a").release()


def test_a_lease_that_is_not_renewed_expires_and_its_holder_learns_who_has_it(server: Server) -> None:
    slow, other = RedisRegistry(server.address, SECRET, lease_s=0.3), RedisRegistry(server.address, SECRET)
    lease = slow.lease("a")
    wait_until(lambda: other.owner("a") == "")
    taken = other.lease("a")
    with pytest.raises(LeaseLost, match="process"):
        lease.renew()
    lease.release()  # changes nothing: `taken` holds the lease
    assert other.owner("a")
    taken.release()


def test_a_lease_and_what_was_said_outlive_redis(server: Server) -> None:
    """Redis is killed and started again. Meanwhile the run may act as long as its lease would have lasted."""
    registry = RedisRegistry(server.address, SECRET)
    with Presence(registry, "a", registry.lease("a"), Stop()) as presence:
        presence.say(state="running", line="before")
        wait_until(lambda: registry.read("a").line == "before")
        server.kill()
        presence.say(line="meanwhile")
        wait_until(lambda: time.monotonic() - presence.renewed > 1.5)
        assert presence.may_act()
        server.start()
        wait_until(lambda: registry.read("a").line == "meanwhile")
        assert registry.read("a").state == "running" and registry.owner("a")
        registry.write("a", wish="stop", desired='{"dmc": 7}')
        assert presence.stop.wait(30)
        assert presence.desired == {"dmc": 7}
    assert registry.owner("a") == ""


def test_a_run_whose_lease_another_took_stops_acting(server: Server) -> None:
    registry = RedisRegistry(server.address, SECRET)
    with Presence(registry, "a", registry.lease("a"), Stop()) as presence:
        registry.client.set("brc:lease:a", "process 1 on elsewhere #1")
        wait_until(lambda: presence.loss is not None)
        with pytest.raises(LeaseLost, match="process 1 on elsewhere"):
            presence.may_act()
    assert registry.owner("a") == "process 1 on elsewhere"


@pytest.mark.parametrize(
    ("address", "password", "complaint"),
    [
        ("127.0.0.1:{port}", "", "no password"),
        ("127.0.0.1:{port}", "wrong", "does not take this password"),
        ("127.0.0.1", SECRET, "is not an address: name host:port"),
    ],
)
def test_redis_without_its_password_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, password: str, complaint: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BRC_REDIS", address.format(port=server.port))
    monkeypatch.setenv("BRC_REDIS_PASSWORD", password)
    with pytest.raises(ConfigError, match=complaint):
        find_registry(tmp_path).names()


def test_redis_that_is_not_there_is_said_so() -> None:
    with pytest.raises(RegistryAway, match=r"Redis at 127\.0\.0\.1:1 cannot be reached"):
        RedisRegistry("127.0.0.1:1", SECRET).names()


def test_a_run_whose_folder_is_lost_is_known_by_redis(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A head may come back without its disk. The run then has the same id, and the values kept last."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRC_REDIS", server.address)
    monkeypatch.setenv("BRC_REDIS_PASSWORD", SECRET)
    plan = validate(tiny.config(name="a"))
    kept = Kept(7, 3, 2, ProgressState([1], 2.5, [0]), [shard_stats()], 0, 4, {"dmc": 2}, [(5, "random", 0)])
    with open_run(plan, "quickstart") as run:
        run.keep(kept)
        run.replay_taken(3)
        first = run.id
    shutil.rmtree("runs")
    with open_run(plan, "quickstart", again=True) as run:
        assert (run.id, run.kept, run.takes) == (first, kept, 3)
        assert (run.path / "config.yaml").exists()
    shutil.rmtree("runs")
    with open_run(plan, "quickstart") as run:  # the run left nothing to resume, so its name is free
        assert run.id != first
