"""A Shard as a named, threaded Ray actor, and the handle that clients call it through."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError

from replay.client.handle import ShardUnavailable
from replay.placement import on_node
from replay.shard import Shard, ShardSpec
from replay.store.rows import Batches

# One thread would block sampling for as long as an insert lasts; measured, several answer in 3 ms where one takes 950.
# Samples have two of their own: while the answer of one is copied into the store, the other draws. More would only need
# more space.
THREADS: dict[str, Any] = {"max_concurrency": 3, "concurrency_groups": {"sample": 2}}  # of ray.remote
# How a call ends when the process is gone, and how fetching an answer does when its node is.
GONE = (RayActorError, OutOfMemoryError, ObjectLostError)


class ShardProcess(Shard):
    """A Shard whose batches are drawn into space that each thread uses again: Ray copies what a method returns.

    Fresh memory for every answer would cost more than the drawing: the system clears each page of it.
    """

    def __init__(self, spec: ShardSpec) -> None:
        context = ray.get_runtime_context()
        super().__init__(spec, again=context.was_current_actor_reconstructed)
        self.node = context.get_node_id()
        self.space = threading.local()

    sample = ray.method(concurrency_group="sample")(Shard.sample)

    def save_timed(self, name: str) -> tuple[int, float]:
        """`save`, and the seconds that it took."""
        started = time.monotonic()
        return self.save(name), time.monotonic() - started

    def _space(self, count: int) -> Batches:
        if getattr(self.space, "batches", None) is None or self.space.batches.num_batches < count:
            self.space.batches = super()._space(count)
        found: Batches = self.space.batches.first(count)
        return found


def start_shard(spec: ShardSpec, node_id: str = "", **options: Any) -> ActorHandle:
    """Start a shard on a node, by default this process's, with further options of its Ray actor, such as its name.

    Ray starts it again when it dies: on the same node, where its files are, for as long as there is that node.
    """
    restarts = {"max_restarts": -1, "max_task_retries": 0}
    options = {"num_cpus": 0} | options | restarts | on_node(node_id)
    handle: ActorHandle = ray.remote(**THREADS)(ShardProcess).options(**options).remote(spec)
    return handle


class RayShard:
    """ShardHandle over a Ray actor. Picklable."""

    def __init__(self, actor: ActorHandle) -> None:
        self.actor = actor

    def call(self, method: str, *arguments: Any) -> RayFuture:
        return RayFuture(getattr(self.actor, method).remote(*arguments))

    def wait(self, futures: Sequence[RayFuture], timeout: float) -> int | None:
        references = [future.reference for future in futures]
        ready, _ = ray.wait(references, num_returns=1, timeout=timeout)
        return references.index(ready[0]) if ready else None


class RayFuture:
    """A pending answer. Its reference is dropped with it, so nothing stays pinned in the object store."""

    def __init__(self, reference: ray.ObjectRef) -> None:
        self.reference = reference

    def done(self) -> bool:
        return bool(ray.wait([self.reference], timeout=0)[0])

    def result(self, timeout: float | None = None) -> Any:
        try:
            return ray.get(self.reference, timeout=timeout)
        except ray.exceptions.GetTimeoutError as error:
            raise TimeoutError from error
        except GONE as error:
            raise ShardUnavailable(str(error)) from error
