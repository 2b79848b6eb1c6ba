"""Ranks in lock step: the first leads and is told what to do, the others do the same. Alone, a rank leads nobody.

Only the first talks to replay. What it samples it deals out by rows: even at hundreds of updates a second that is less
than a process receives from replay anyway, and it keeps one limiter's answer, one counter and one clock for all.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from learner.learner import Learner, LearnerSpec, Trained
from learner.nonfinite import NonFinite
from learner.state import dcp
from replay.store.rows import Batches


def allocate(spec: LearnerSpec, rows: int) -> Batches:
    """Space for `most_batches` batches of so many rows; pinned if the device is a GPU, which fetches them itself."""
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
    """One rank's place in it. Make it on every rank; then lead on the first and `follow` on all others."""

    def __init__(self, learner: Learner, timeout_s: float = 600.0) -> None:
        self.learner = learner
        self.ranks = learner.ranks
        self.rows = learner.spec.config.batch_size // self.ranks.count
        # Files are written by threads of their own, while this one goes on with collectives of its own.
        several = self.ranks.count > 1
        self.files = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s)) if several else None
        self.broken: Exception | None = None

    def train(self, batches: Batches, shard: int, diagnostics: bool, between: Callable[[], None]) -> Trained:
        """Learner.train of whole batches, by all ranks."""
        extremes = (batches.return_minimum, batches.return_maximum)
        self._tell("train", batches.num_batches, shard, diagnostics, extremes)
        return self.learner.train(self._deal(batches), shard, diagnostics, between)

    def use_threads(self, threads: int) -> None:
        """Have every rank make the updates that follow on so many threads of its CPU."""
        if threads != torch.get_num_threads():
            self._tell("threads", threads)
            torch.set_num_threads(threads)

    def save(self, url: str) -> dcp.Saving:
        """Begin to write the state of all ranks. Only between two calls of `train`."""
        dcp.save_counters(self.learner, url)
        self._tell("save", url)
        try:
            return dcp.save(self.learner, url, self.files)
        except Exception as error:  # the others are at it: they cannot be called back
            self.broken = error if self.ranks.count > 1 else None
            raise

    def idle(self) -> None:
        """Tell the others that the first is there. They wait for no longer than the group's timeout."""
        self._tell("idle")

    def follow(self) -> None:
        """Do what the first rank does, until it is gone, which raises what torch.distributed says then."""
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
                with suppress(NonFinite):  # the first rank finds it too, and has all the batches
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
        """Send the others their rows; the first rank's, as views."""
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
