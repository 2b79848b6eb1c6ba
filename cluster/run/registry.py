"""The registry of runs: the state of every run, and the requests to it.

A cluster keeps it in Redis, for every machine to see; a single machine keeps it in the runs' folders, without a server.
Both have the same interface. Each run has named fields of text, of which the last write counts, and a lease that one
coordinator at a time holds.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, Protocol

import psutil

from actors.benchmarks.catalogue import nearest
from cluster.errors import ConfigError
from replay.json_text import json_text
from replay.store.locations import is_locked

LEASE_S = 20.0  # a coordinator that does not renew its lease for longer has lost it
PASSWORD_FILE = Path("~/.brc/redis_password")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The state of a run, and the requests to it. All fields are text; a field that was never written is "".

    Attributes:
        state: running, finished, stopped or failed.
        reason: why the run is in this state.
        id: the run's unique id (cluster/run/identity.py).
        preset: the preset that it was started with.
        config: its configuration, as in config.yaml.
        takes: how often replay has begun in this run.
        kept: the state that a coordinator needs to take over (cluster/run/kept.py), as JSON. With id, config and takes
            it replaces a folder that is lost.
        folder: its folder, on the machine of its coordinator.
        checkpoint: URL of the newest checkpoint.
        heartbeat: when its coordinator last wrote, in seconds since 1970.
        line, scores, events: what `brc status` shows.
        fleet: the actors that there are, by benchmark, and the time, as JSON.
        most: the most actors that each benchmark may have, as JSON.
        desired: a request: actors by benchmark, as JSON.
        wish: a request: "stop" or nothing.
    """

    state: str = ""
    reason: str = ""
    id: str = ""
    preset: str = ""
    config: str = ""
    takes: str = ""
    kept: str = ""
    folder: str = ""
    checkpoint: str = ""
    heartbeat: str = ""
    line: str = ""
    scores: str = ""
    events: str = ""
    fleet: str = ""
    most: str = ""
    desired: str = ""
    wish: str = ""


FIELDS = tuple(field.name for field in fields(Entry))


class RegistryAway(Exception):
    """The registry cannot be reached now."""


class LeaseLost(Exception):
    """Another coordinator has the lease of the run."""


class Lease(Protocol):
    """The right to coordinate a run. A process that ends loses it, at once or when the lease expires."""

    def renew(self) -> None:
        """Renew the lease. Raises LeaseLost if another has it, RegistryAway if the registry cannot be reached."""

    def release(self) -> None: ...


class Registry(Protocol):
    def names(self) -> list[str]:
        """Return the names of all runs."""

    def read(self, run: str, *names: str) -> Entry:
        """Return these fields of a run, by default all. Other fields, and fields never written, are ""."""

    def write(self, run: str, **values: str) -> None:
        """Write fields of an Entry. Raises TypeError for a name that it does not have."""

    def forget(self, run: str) -> None:
        """Remove a run whose folder is about to go."""

    def lease(self, run: str) -> Lease:
        """Take the lease of a run. Raises ConfigError when another process has it."""

    def owner(self, run: str) -> str:
        """Return the process that holds the lease, in words; "" when there is none."""


class FileRegistry:
    """A registry of files. Fields are files in `<runs>/<run>/registry`, replaced atomically; a lease is a file lock."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs

    def names(self) -> list[str]:
        return sorted(path.parent.name for path in self.runs.glob("[!.]*/config.yaml"))

    def read(self, run: str, *names: str) -> Entry:
        folder = self.runs / run / "registry"
        return Entry(**{name: (folder / name).read_text() for name in names or FIELDS if (folder / name).exists()})

    def write(self, run: str, **values: str) -> None:
        Entry(**values)
        folder = self.runs / run / "registry"
        folder.mkdir(exist_ok=True)
        for name, value in values.items():
            temporary = folder / f"{name}.{os.getpid()}"
            temporary.write_text(value)
            temporary.rename(folder / name)

    def forget(self, run: str) -> None:
        """Do nothing: the fields are in the run's folder."""

    def lease(self, run: str) -> Lease:
        return FileLease(self.runs / run)

    def owner(self, run: str) -> str:
        file = self.runs / run / "lock"
        return described(file) if file.exists() and is_locked(file) else ""


class FileLease:
    """A lock on a file. The system releases it when the process ends for any reason."""

    def __init__(self, path: Path) -> None:
        self.lock: IO[str] = (path / "lock").open("a+")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = described(path / "lock")
            self.lock.close()
            raise in_use(path.name, owner) from None
        self.lock.truncate(0)
        self.lock.write(json_text({"pid": os.getpid(), "host": socket.gethostname()}))
        self.lock.flush()

    def renew(self) -> None:
        """Do nothing: a file lease needs no renewal."""

    def release(self) -> None:
        self.lock.close()


def described(lock: Path) -> str:
    """Return the process that last held a lock, in words."""
    try:
        owner: dict[str, Any] = json.loads(lock.read_text())
    except (OSError, ValueError):
        return "another process"
    return f"process {owner['pid']} on {owner['host']}"


def in_use(run: str, owner: str) -> ConfigError:
    return ConfigError(f"run {run} is live ({owner}): choose another --name, or stop it with `brc stop {run}`")


class RedisRegistry:
    """A registry in Redis. The fields of a run are a hash, its lease is a key that expires.

    Args:
        address: host:port.
        lease_s: seconds after which a lease that is not renewed expires.
    """

    def __init__(self, address: str, password: str, lease_s: float = LEASE_S) -> None:
        import redis  # needed on clusters only

        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"BRC_REDIS {address!r} is not an address: name host:port, such as 10.0.0.5:6380")
        self.address = address
        self.milliseconds = round(1000 * lease_s)
        self.away: Any = redis.exceptions.RedisError  # also if Redis takes no writes, as with a full disk
        self.refused: Any = redis.exceptions.AuthenticationError
        self.client: Any = redis.Redis(
            host, int(port), password=password, decode_responses=True, socket_timeout=5.0, socket_connect_timeout=5.0
        )

    def _call(self, command: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self.client, command)(*arguments, **options)
        except self.refused as error:  # before `away`, its base class
            raise ConfigError(f"BRC_REDIS {self.address} does not take this password ({error})") from error
        except self.away as error:
            raise RegistryAway(f"Redis at {self.address} cannot be reached: {error}") from error

    def names(self) -> list[str]:
        return sorted(self._call("smembers", "brc:runs"))

    def read(self, run: str, *names: str) -> Entry:
        found = self._call("hmget", f"brc:run:{run}", names or FIELDS)
        return Entry(**{name: value or "" for name, value in zip(names or FIELDS, found, strict=True)})

    def write(self, run: str, **values: str) -> None:
        Entry(**values)
        self._call("hset", f"brc:run:{run}", mapping=values)
        self._call("sadd", "brc:runs", run)

    def forget(self, run: str) -> None:
        self._call("srem", "brc:runs", run)
        self._call("delete", f"brc:run:{run}")

    def lease(self, run: str) -> Lease:
        return RedisLease(self, run)

    def owner(self, run: str) -> str:
        owner: str | None = self._call("get", f"brc:lease:{run}")
        return owner.rpartition(" #")[0] if owner else ""


# Redis runs a script as one step: no other client writes between its read and its write.
RENEW = """
local owner = redis.call('get', KEYS[1])
if owner and owner ~= ARGV[1] then return owner end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
return ''
"""
RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end"


class RedisLease:
    """A key in Redis. If Redis was down and has lost it, renewing takes it again, unless another process was faster."""

    def __init__(self, registry: RedisRegistry, run: str) -> None:
        self.registry = registry
        self.run = run
        self.key = f"brc:lease:{run}"
        self.owner = f"process {os.getpid()} on {socket.gethostname()} #{time.time_ns()}"
        holder = registry._call("get", self.key)
        if holder and is_dead(holder):
            registry._call("eval", RELEASE, 1, self.key, holder)
        try:
            self.renew()
        except LeaseLost as error:
            raise in_use(run, str(error)) from None

    def renew(self) -> None:
        other = self.registry._call("eval", RENEW, 1, self.key, self.owner, self.registry.milliseconds)
        if other:
            raise LeaseLost(other.rpartition(" #")[0])

    def release(self) -> None:
        self.registry._call("eval", RELEASE, 1, self.key, self.owner)


def is_dead(holder: str) -> bool:
    """Whether a lease's holder was a process of this host that has ended: its lease can be taken before it expires."""
    _, pid, _, host, _ = holder.split(" ")
    return host == socket.gethostname() and not psutil.pid_exists(int(pid))


def find_registry(runs: Path) -> Registry:
    """Return the registry in Redis if the environment names one, else the registry in the folder of runs."""
    address = os.environ.get("BRC_REDIS", "")
    return RedisRegistry(address, redis_password()) if address else FileRegistry(runs)


def redis_password() -> str:
    """Return the password from the environment or its file. Raises ConfigError without one: Redis would be open."""
    file = PASSWORD_FILE.expanduser()
    found = os.environ.get("BRC_REDIS_PASSWORD", "") or (file.read_text().strip() if file.exists() else "")
    if not found:
        raise ConfigError(f"BRC_REDIS is named, but no password: set BRC_REDIS_PASSWORD or write it to {PASSWORD_FILE}")
    return found


def known_run(registry: Registry, name: str) -> str:
    """Return the name of a run that exists; if `name` is empty, of the only live run. Raises ConfigError."""
    names = registry.names()
    if name and name not in names:
        raise ConfigError(
            f"there is no run {name!r}; " + (nearest(name, names) if names else "start one with `brc train`")
        )
    if name:
        return name
    live = [name for name in names if registry.owner(name)]
    if len(live) == 1:
        return live[0]
    raise ConfigError(f"name a run: {', '.join(live or names) or 'there is none yet'}")
