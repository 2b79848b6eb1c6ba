"""Ranks in lock step: the first rank gets the commands, and all other ranks repeat them.

Only the first rank samples from replay. It scatters the rows of its batches over the ranks: even at hundreds of updates
per second this is less data than it receives from replay, and all ranks share one limiter answer, counter and clock.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from learner.agents.interface import Batch
from learner.learner import Learner
from learner.nonfinite import NonFinite
from learner.spec import LearnerSpec
from learner.state import dcp
from learner.trained import Trained
from replay.store import moments
from replay.store.rows import Batches


def fields(spec: LearnerSpec) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Return the shape of a row and the dtype of each field of a batch, in the order of Batch."""
    networks, number = spec.networks, torch.float32
    observation = networks.critic_shape, getattr(torch, spec.observation_dtype)
    return [observation, ((networks.action_size,), number), ((), number), ((), number), observation, ((), torch.int64)]


def allocate(spec: LearnerSpec, rows: int) -> Batches:
    """Allocate space for `batches_per_request` batches of `rows` rows. It is pinned if the device is a GPU, which then
    copies from it asynchronously."""
    count, pinned = spec.config.batches_per_request, spec.config.device == "cuda"
    of_rows = [((count, rows, *shape), dtype) for shape, dtype in fields(spec)]
    shapes = [*of_rows, *[((spec.networks.num_tasks,), torch.float32)] * 2]
    arrays = [torch.empty(shape, dtype=dtype, pin_memory=pinned).numpy() for shape, dtype in shapes]
    return Batches(*arrays)._replace(return_moments=np.zeros((spec.networks.num_tasks, moments.SIZE)))


class Crew:
    """One rank's connection to the others. Make it on every rank. Then call `follow` on all ranks but the first, and
    the other methods on the first."""

    def __init__(self, learner: Learner, timeout_s: float = 600.0) -> None:
        self.learner = learner
        self.ranks = learner.ranks
        self.rows = learner.spec.config.batch_size // self.ranks.shares
        # A group of their own for the threads that write files, since this thread goes on with other collectives.
        several = self.ranks.count > 1
        self.files = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s)) if several else None
        self.broken: Exception | None = None

    def train(self, batches: Batches, shard: int, diagnostics: bool, between: Callable[[], None]) -> Trained:
        """Call `Learner.train` on all ranks, each with its rows of the batches."""
        returns = (batches.return_minimum, batches.return_maximum, batches.return_moments)
        self._tell("train", batches.num_batches, shard, diagnostics, returns)
        mine = self._deal(self.learner.fetch(batches))
        return self.learner.train_on(mine, returns, shard, diagnostics, between)

    def use_threads(self, threads: int) -> None:
        """Set the number of CPU threads of all later updates, on every rank."""
        if threads != torch.get_num_threads():
            self._tell("threads", threads)
            torch.set_num_threads(threads)

    def save(self, url: str) -> dcp.Saving:
        """Begin to write the state of all ranks. Call this only between two calls of `train`."""
        dcp.save_counters(self.learner, url)
        self._tell("save", url)
        try:
            return dcp.save(self.learner, url, self.files)
        except Exception as error:  # the other ranks have begun and cannot be stopped
            self.broken = error if self.ranks.count > 1 else None
            raise

    def idle(self) -> None:
        """Show the other ranks that the first is alive. They fail if they hear nothing for the group's timeout."""
        self._tell("idle")

    def follow(self) -> None:
        """Repeat the commands of the first rank, until it is gone. Then torch.distributed raises its error."""
        learner = self.learner
        trained: Trained | None = None
        while True:
            told: list[Any] = [None]
            dist.broadcast_object_list(told, 0, device=torch.device("cpu"))
            what, *details = told[0]
            if what == "train":
                count, shard, diagnostics, returns = details
                mine = [
                    torch.empty(count, self.rows, *shape, dtype=dtype, device=learner.device)
                    for shape, dtype in fields(learner.spec)
                ]
                for tensor in mine:
                    dist.scatter(tensor, None, 0)
                before, trained = trained, learner.train_on(Batch(*mine), returns, shard, diagnostics)
                # A GPU works on these updates while this rank waits for those before and receives the next.
                with suppress(NonFinite):  # the first rank raises it too, and has all the rows
                    if before is not None:
                        before.finish()
            elif what == "threads":
                torch.set_num_threads(details[0])
            elif what == "save":
                dcp.save(self.learner, details[0], self.files)

    def _tell(self, *command: Any) -> None:
        if self.broken is not None:
            raise RuntimeError("the other ranks are in the midst of a checkpoint") from self.broken
        if self.ranks.count > 1:
            dist.broadcast_object_list([command], 0, device=torch.device("cpu"))

    def _deal(self, batch: Batch) -> Batch:
        """Send every rank its rows, from device to device, and return those of this rank."""
        if self.ranks.count == 1:
            return batch
        everywhere = [replace(self.ranks, rank=rank).rows(batch.rewards.shape[1]) for rank in range(self.ranks.count)]
        mine: list[Tensor] = []
        for tensor in batch:
            parts = [tensor[:, rows].contiguous() for rows in everywhere]
            mine.append(torch.empty_like(parts[0]))
            dist.scatter(mine[-1], parts, 0)
        return Batch(*mine)
