"""Ranks in lock step: the first rank gets the commands, and all other ranks repeat them.

Only the first rank samples from replay. It scatters the rows of its batches over the ranks: even at hundreds of updates
per second this is less data than it receives from replay, and all ranks share one limiter answer, counter and clock.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from learner.learner import Learner, Trained
from learner.nonfinite import NonFinite
from learner.spec import LearnerSpec
from learner.state import dcp
from replay.store.rows import Batches


def allocate(spec: LearnerSpec, rows: int) -> Batches:
    """Allocate space for `batches_per_request` batches of `rows` rows. It is pinned if the device is a GPU, which then
    copies from it asynchronously."""
    networks, pinned = spec.networks, spec.config.device == "cuda"
    observation_dtype = getattr(torch, spec.observation_dtype)

    def empty(*extra: int, dtype: torch.dtype = torch.float32) -> np.ndarray:
        shape = (spec.config.batches_per_request, rows, *extra)
        array: np.ndarray = torch.empty(shape, dtype=dtype, pin_memory=pinned).numpy()
        return array

    return Batches(
        empty(*networks.observation_shape, dtype=observation_dtype),
        empty(networks.action_size),
        empty(),
        empty(),
        empty(*networks.observation_shape, dtype=observation_dtype),
        empty(dtype=torch.int64),
        *(torch.empty(networks.num_tasks, pin_memory=pinned).numpy() for _ in range(2)),
    )


class Crew:
    """One rank's connection to the others. Make it on every rank. Then call `follow` on all ranks but the first, and
    the other methods on the first."""

    def __init__(self, learner: Learner, timeout_s: float = 600.0) -> None:
        self.learner = learner
        self.ranks = learner.ranks
        self.rows = learner.spec.config.batch_size // self.ranks.count
        # A group of their own for the threads that write files, since this thread goes on with other collectives.
        several = self.ranks.count > 1
        self.files = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s)) if several else None
        self.broken: Exception | None = None

    def train(self, batches: Batches, shard: int, diagnostics: bool, between: Callable[[], None]) -> Trained:
        """Call `Learner.train` on all ranks, each with its rows of the batches."""
        extremes = (batches.return_minimum, batches.return_maximum)
        self._tell("train", batches.num_batches, shard, diagnostics, extremes)
        return self.learner.train(self._deal(batches), shard, diagnostics, between)

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
        space = allocate(self.learner.spec, self.rows)
        while True:
            told: list[Any] = [None]
            dist.broadcast_object_list(told, 0, device=torch.device("cpu"))
            what, *details = told[0]
            if what == "train":
                count, shard, diagnostics, extremes = details
                mine = space.first(count)._replace(return_minimum=extremes[0], return_maximum=extremes[1])
                for array in mine[:6]:
                    dist.scatter(torch.from_numpy(array), None, 0)
                with suppress(NonFinite):  # the first rank raises it too, and has all the rows
                    self.learner.train(mine, shard, diagnostics).finish()
            elif what == "threads":
                torch.set_num_threads(details[0])
            elif what == "save":
                dcp.save(self.learner, details[0], self.files)

    def _tell(self, *command: Any) -> None:
        if self.broken is not None:
            raise RuntimeError("the other ranks are in the midst of a checkpoint") from self.broken
        if self.ranks.count > 1:
            dist.broadcast_object_list([command], 0, device=torch.device("cpu"))

    def _deal(self, batches: Batches) -> Batches:
        """Send the other ranks their rows and return the first rank's, as views."""
        if self.ranks.count == 1:
            return batches
        mine: list[np.ndarray] = []
        for array in batches[:6]:
            parts = [
                torch.from_numpy(np.ascontiguousarray(array[:, rank * self.rows : (rank + 1) * self.rows]))
                for rank in range(self.ranks.count)
            ]
            dist.scatter(torch.empty_like(parts[0]), parts, 0)
            mine.append(array[:, : self.rows])
        return batches._replace(**dict(zip(Batches._fields, mine, strict=False)))
