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

# With one thread, sampling would wait for inserts: several threads were measured to answer in 3 ms, one in 950 ms.
# Samples have two threads of their own: one draws while the answer of the other is copied into the object store. More
# threads would only need more memory.
THREADS: dict[str, Any] = {"max_concurrency": 3, "concurrency_groups": {"sample": 2}}  # options of ray.remote
# The errors of a call when the process is gone, and of fetching an answer when its node is gone.
GONE = (RayActorError, OutOfMemoryError, ObjectLostError)


class ShardProcess(Shard):
    """A Shard for a Ray actor. Each thread reuses its space for batches, since Ray copies the result of a method.

    New memory for every answer would cost more than the sampling: the system clears each page of it.
    """

    def __init__(self, spec: ShardSpec) -> None:
        context = ray.get_runtime_context()
        super().__init__(spec, again=context.was_current_actor_reconstructed)
        self.node = context.get_node_id()
        self.space = threading.local()

    sample = ray.method(concurrency_group="sample")(Shard.sample)

    def save_timed(self, name: str) -> tuple[int, float]:
        """Call `save`, and return its result and the seconds that it took."""
        started = time.monotonic()
        return self.save(name), time.monotonic() - started

    def _space(self, count: int) -> Batches:
        if getattr(self.space, "batches", None) is None or self.space.batches.num_batches < count:
            self.space.batches = super()._space(count)
        found: Batches = self.space.batches.first(count)
        return found


def start_shard(spec: ShardSpec, node_id: str = "", **options: Any) -> ActorHandle:
    """Start a shard on a node, by default this process's, with further options of its Ray actor, such as its name.

    Ray restarts it when it dies: on the same node, where its files are, as long as that node exists.
    """
    restarts = {"max_restarts": -1, "max_task_retries": 0}
    options = {"num_cpus": 0} | options | restarts | on_node(node_id)
    handle: ActorHandle = ray.remote(**THREADS)(ShardProcess).options(**options).remote(spec)
    return handle


class RayShard:
    """A ShardHandle of a Ray actor. Picklable."""

    def __init__(self, actor: ActorHandle) -> None:
        self.actor = actor

    def call(self, method: str, *arguments: Any) -> RayFuture:
        return RayFuture(getattr(self.actor, method).remote(*arguments))

    def wait(self, futures: Sequence[RayFuture], timeout: float) -> int | None:
        references = [future.reference for future in futures]
        ready, _ = ray.wait(references, num_returns=1, timeout=timeout)
        return references.index(ready[0]) if ready else None


class RayFuture:
    """A pending answer. Its reference is dropped with it, so that the object store does not keep the answer."""

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
