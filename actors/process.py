"""Runs an Actor or an Evaluator in its own Ray process."""

from __future__ import annotations

import os
import threading
import time
import traceback
from typing import Any, NamedTuple

import psutil
import ray
from ray.actor import ActorHandle

from actors.actor import Actor, ActorSpec, make_environments
from actors.backends.returned import BadEnvironment
from actors.door import BadNumber, OnlyBadNumbers
from actors.evaluator import Evaluation, Evaluator, EvaluatorSpec
from actors.reports import ActorReport
from replay.client.handle import ShardHandle
from replay.client.writer import Writer
from replay.policy_store import PolicyMessage
from replay.process import GONE

# numpy's threads gain nothing on a few rows and would compete with other actors for the cores. Without a fixed
# threshold, glibc keeps the memory of every freed large array: 116 MB more for an actor of 16 cartpole copies.
ACTOR_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MUJOCO_GL": os.environ.get("MUJOCO_GL", "disabled"),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 18),
}


class RayPolicySource:
    """Asks the policy store, with at most one request under way."""

    def __init__(self, store: ActorHandle) -> None:
        self.store = store
        self.asked: ray.ObjectRef | None = None
        self.asked_at = 0.0

    def ask(self, version: int) -> None:
        if self.asked is None:
            self.asked, self.asked_at = self.store.newest.remote(version), time.monotonic()

    def poll(self) -> PolicyMessage | None:
        if self.asked is None or not ray.wait([self.asked], timeout=0)[0]:
            return None
        return self.wait()

    def wait(self) -> PolicyMessage | None:
        """Wait for the answer and return it; None if nothing is newer, or if the store has died with its policies."""
        asked, self.asked = self.asked, None
        try:
            answer = ray.get(asked)
            if not answer:
                return None
            boxed, age_s = answer
            message: PolicyMessage = ray.get(boxed)
        except GONE:
            return None
        # The array is a view of shared memory. The copy lets Ray free that memory.
        return message._replace(parameters=message.parameters.copy(), published_at=self.asked_at - age_s)


class ActorProcess:
    """Collects in a thread once it is started, and answers `report` meanwhile."""

    def __init__(self, spec: ActorSpec, shards: list[ShardHandle], store: ActorHandle) -> None:
        self.spec = spec
        self.shards = shards
        self.policies = RayPolicySource(store)
        self.actor: Actor | None = None
        self.stopping = threading.Event()
        self.leaving = threading.Event()
        self.failure: Exception | None = None
        self.only_bad: BadNumber | None = None
        self.beat = time.monotonic()
        self.process = psutil.Process()
        self.started = False
        self.thread = threading.Thread(target=self._collect, name="collect", daemon=True)

    def placed(self) -> tuple[str, int]:
        """Return its node and process id. The answer shows that the process has started."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def build(self) -> None:
        """Make the environments if they are not made yet: a coordinator that takes over calls this again.

        Raises RuntimeError if an earlier coordinator told this actor to end, but died before it could end the process.
        """
        if self.stopping.is_set() or self.leaving.is_set():
            raise RuntimeError(f"actor {self.spec.name} was told to end before the coordinator died")
        if self.actor is not None:
            return
        spec, shards = self.spec, self.shards
        writer = Writer(spec.writer_name, shards, first=spec.index % len(shards))
        self.actor = Actor(spec, make_environments(spec), writer, self.policies)

    def start(self) -> None:
        """Build the actor if it is not built, and start to collect. Do nothing if it collects already."""
        self.build()
        if not self.started:
            self.started, self.beat = True, time.monotonic()
            self.thread.start()

    def _stopped(self) -> bool:
        """Whether to stop. The loop asks before every step, and while it waits for replay."""
        self.beat = time.monotonic()
        return self.stopping.is_set()

    def _built(self) -> Actor:
        """Return the Actor. Raises RuntimeError before it is built."""
        if self.actor is None:
            raise RuntimeError(f"actor {self.spec.name} is not built: call build or start before anything else")
        return self.actor

    def _collect(self) -> None:
        try:
            actor = self._built()
            self.policies.ask(-1)
            newest = self.policies.wait()  # without it, a restarted actor begins with a segment of random actions
            if newest is not None:
                actor.use(newest)
            while not self._stopped() and not self.leaving.is_set() and not actor.writer.finished:
                actor.step(self._stopped)
            if self.leaving.is_set():
                actor.finish(self._stopped)
        except OnlyBadNumbers as error:
            self.only_bad = error.last
        except BadEnvironment as error:
            self.failure = error
        except BaseException:  # sys.exit too: an environment may call it
            self.failure = RuntimeError(f"actor {self.spec.name} failed:\n{traceback.format_exc()}")

    def report(self) -> ActorReport:
        """Return a report. Raises the error that stopped the loop, if it failed."""
        if self.failure is not None:
            raise self.failure
        if self.started and self.thread.ident is None:
            raise RuntimeError(f"actor {self.spec.name} could not begin its thread")
        silent_s = time.monotonic() - self.beat if self.thread.is_alive() else 0.0
        memory = self.process.memory_info()
        only_bad = self.only_bad  # read first: the report then includes all bad numbers that led to it
        return (
            self._built()
            .report()
            ._replace(silent_s=silent_s, memory_bytes=memory.rss - memory.shared, only_bad=only_bad)
        )

    def leave(self) -> None:
        """Stop collecting, and return when replay has all collected rows."""
        self.leaving.set()
        if self.thread.is_alive():
            self.thread.join()

    def stop(self) -> None:
        """Stop the loop, and return when it has ended. A push that replay has not taken yet is dropped."""
        self.stopping.set()
        if self.thread.is_alive():
            self.thread.join()


class EvaluatorReport(NamedTuple):
    """Progress of an evaluator."""

    silent_s: float  # since it last began to step a pool or to make a pool; 0 while it plays nothing
    copies: int  # in its largest pool, whose copies are stepped together
    making: bool  # whether it makes environments at present


class EvaluatorProcess:
    """Plays one evaluation after the other, and answers `report` meanwhile."""

    def __init__(self, spec: EvaluatorSpec) -> None:
        self.evaluator = Evaluator(spec)
        self.beat: float | None = None  # None while it plays nothing

    def evaluate(self, message: PolicyMessage | None, number: int) -> Evaluation:
        """Call `Evaluator.evaluate`."""
        try:
            return self.evaluator.evaluate(message, number, self._stopped)
        finally:
            self.beat = None

    def _stopped(self) -> bool:
        """Note the time of a sign of life. The evaluator calls this before every step; it is never told to stop."""
        self.beat = time.monotonic()
        return False

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def placed(self) -> tuple[str, int]:
        """Return its node and process id. The answer shows that the process has started."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def report(self) -> EvaluatorReport:
        beat, copies = self.beat, self.evaluator.copies
        silent_s = 0.0 if beat is None else time.monotonic() - beat
        return EvaluatorReport(silent_s, copies.largest, copies.making)


def start_actor(
    spec: ActorSpec, shards: list[ShardHandle], store: ActorHandle, runtime: dict[str, Any], **options: Any
) -> ActorHandle:
    """Start an ActorProcess. `options` are further options of the Ray actor: its name, its place, its CPUs."""
    options |= {"max_restarts": 0, "runtime_env": complete(runtime)}
    handle: ActorHandle = ray.remote(ActorProcess).options(**options).remote(spec, shards, store)
    return handle


def start_evaluator(spec: EvaluatorSpec, runtime: dict[str, Any], **options: Any) -> ActorHandle:
    """Start an EvaluatorProcess. `options` are further options of the Ray actor: its name, its place."""
    options = {"num_cpus": 0} | options | {"max_restarts": 0, "runtime_env": complete(runtime)}
    threads: dict[str, Any] = {"max_concurrency": 1, "concurrency_groups": {"watch": 1}}
    handle: ActorHandle = ray.remote(**threads)(EvaluatorProcess).options(**options).remote(spec)
    return handle


def complete(runtime: dict[str, Any]) -> dict[str, Any]:
    """Return a benchmark's runtime environment, with the variables of ACTOR_ENVIRONMENT that it does not set."""
    return runtime | {"env_vars": ACTOR_ENVIRONMENT | runtime.get("env_vars", {})}
