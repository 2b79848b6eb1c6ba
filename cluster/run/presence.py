"""Connects a run to the registry, in a thread: keeps its lease, writes its fields and reads requests to it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress

from cluster.errors import ConfigError
from cluster.run.registry import LEASE_S, FileRegistry, Lease, LeaseLost, Registry, RegistryAway
from cluster.run.stop import Stop
from replay.json_text import json_text

BEAT_S = 0.5
LAST_WORDS_S = 120.0  # of waiting for a registry that is away: else nobody would know how the run ended
DISK_S = 10.0  # the same, for a registry of files


class Presence:
    """A context manager that connects a run to the registry. Leaving it writes the last fields and releases the lease.

    Attributes:
        stop: set when a stop is requested.
        desired: actors by benchmark, as last requested; {} before the first request.
    """

    def __init__(self, registry: Registry, run: str, lease: Lease, stop: Stop) -> None:
        self.registry = registry
        self.run = run
        self.lease = lease
        self.stop = stop
        self.desired: dict[str, int] = json.loads(registry.read(run, "desired").desired or "{}")
        self.unsaid: dict[str, str] = {}
        self.lock = threading.Lock()
        self.renewed = time.monotonic()
        self.loss: LeaseLost | None = None
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="presence", daemon=True)

    def __enter__(self) -> Presence:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.thread.join()
        patience = DISK_S if isinstance(self.registry, FileRegistry) else LAST_WORDS_S
        deadline = time.monotonic() + patience
        while self.loss is None and time.monotonic() < deadline:
            try:
                self._say()
                self.lease.release()
                return
            except (RegistryAway, OSError):
                time.sleep(BEAT_S)

    def begin(self, counts: dict[str, int], most: dict[str, int]) -> None:
        """Request `counts` actors by benchmark, unless others were requested already. `most` are the most allowed."""
        self.say(most=json_text(most))
        if not self.desired:
            self.desired = counts
            self.say(desired=json_text(counts))

    def say(self, **fields: str) -> None:
        """Let the thread write these fields soon."""
        with self.lock:
            self.unsaid |= fields

    def break_off(self, reason: str) -> None:
        """Record at once that the run was stopped. The process ends after this, which releases the lease."""
        with suppress(RegistryAway, OSError):
            self.registry.write(self.run, state="stopped", reason=reason, heartbeat=str(time.time()))

    def may_act(self) -> bool:
        """Whether this process surely holds the lease. While it does not, another process may take over, and parts must
        be left as they are. Raises LeaseLost once another process holds it."""
        if self.loss is not None:
            raise self.loss
        return time.monotonic() - self.renewed < LEASE_S

    def _beat(self) -> None:
        while not self.ending.wait(BEAT_S):
            try:
                started = time.monotonic()
                self.lease.renew()
                self.renewed = started
                self._say()
                self._hear()
            except LeaseLost as loss:
                self.loss = loss
                return
            except (RegistryAway, OSError, ConfigError):  # such as a full disk or a new password: try again
                continue

    def _say(self) -> None:
        with self.lock:
            unsaid, self.unsaid = self.unsaid, {}
        if not unsaid:
            return
        try:
            self.registry.write(self.run, heartbeat=str(time.time()), **unsaid)
        except (RegistryAway, OSError):
            with self.lock:
                self.unsaid = unsaid | self.unsaid
            raise

    def _hear(self) -> None:
        asked = self.registry.read(self.run, "desired", "wish")
        if asked.desired:
            self.desired = json.loads(asked.desired)
        if asked.wish == "stop":
            self.stop.set()
