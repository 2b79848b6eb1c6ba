"""Work of a learner's training thread: jobs that other threads request, and batches to update with."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from learner.learner import Trained
from learner.nonfinite import NonFinite
from replay.store.rows import Batches

Jobs = queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]


@dataclass
class Space:
    """Memory for sampled batches, and the updates that use them.

    Attributes:
        used: the batches in it that `trained` uses.
        trained: updates in progress; None if there are none.
    """

    batches: Batches
    used: Batches
    trained: Trained | None = None


def do(jobs: Jobs, wait_s: float = 0.0) -> None:
    """Do every queued job. If there is none, wait up to `wait_s` seconds for one.

    If a job raises, its answer is the exception. NonFinite is raised here too: the learner must not go on, and must not
    be saved.
    """
    try:
        while True:
            job, answer = jobs.get(block=wait_s > 0, timeout=wait_s)
            wait_s = 0.0
            try:
                answer.set_result(job())
            except Exception as error:
                answer.set_exception(error)
                if isinstance(error, NonFinite):
                    raise
    except queue.Empty:
        return
