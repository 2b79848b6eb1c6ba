"""A run's tie to the registry: keeps its lease, says what it says, and hears what is asked of it, in a thread."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress

from cluster.registry import LEASE_S, Lease, LeaseLost, Registry, RegistryAway

BEAT_S = 0.5


class Presence:
    """Use as a context manager; leaving says what was not said yet and gives the lease up.

    Attributes:
        stop: set when a stop is asked for.
        desired: actors by benchmark, as last asked for; {} before.
    """

    def __init__(self, registry: Registry, run: str, lease: Lease, stop: threading.Event) -> None:
        self.registry = registry
        self.run = run
        self.lease = lease
        self.stop = stop
        self.desired: dict[str, int] = {}
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
        with suppress(RegistryAway, LeaseLost, OSError):
            if self.loss is None:
                self._say()
                self.lease.release()

    def begin(self, counts: dict[str, int], most: dict[str, int]) -> None:
        """Have so many actors of every benchmark, whatever was asked of the run before; no more than `most` may be."""
        self.desired = counts
        self.say(desired=json.dumps(counts), most=json.dumps(most))

    def say(self, **fields: str) -> None:
        """Have fields written, soon."""
        with self.lock:
            self.unsaid |= fields

    def may_act(self) -> bool:
        """Whether the lease is surely this process's. While it is not, another may take over, and parts are to be left
        as they are. Raises LeaseLost once another has."""
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
            except (RegistryAway, OSError):  # a full disk: what is unsaid is said when there is room
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
        asked = self.registry.read(self.run)
        if asked["desired"]:
            self.desired = json.loads(asked["desired"])
        if asked["wish"] == "stop":
            self.stop.set()
