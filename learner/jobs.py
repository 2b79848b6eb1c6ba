"""Work of a learner's training thread: what other threads request of it, and batches to update with."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from learner.nonfinite import NonFinite
from replay.store.rows import Batches

if TYPE_CHECKING:
    from learner.trained import Trained

Jobs = queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]


@dataclass(frozen=True)
class Requests:
    """What other threads ask of the training thread.

    Attributes:
        jobs: done between two updates.
        pauses: jobs that are done when no update is under way.
        training: whether to make updates.
    """

    jobs: Jobs = field(default_factory=queue.SimpleQueue)
    pauses: Jobs = field(default_factory=queue.SimpleQueue)
    training: threading.Event = field(default_factory=threading.Event)


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
