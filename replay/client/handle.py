"""The handle through which clients call methods of a shard. The answer of a call is a future.

Within one process the answer is available at once (LocalShard). Across processes it is a Ray future
(replay/process.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from replay.shard import Shard


class ShardUnavailable(Exception):
    """The shard's process was gone or unreachable. It may or may not have done the call."""


class Future(Protocol):
    def done(self) -> bool: ...

    def result(self, timeout: float | None = None) -> Any:
        """Return the answer. Raises TimeoutError after `timeout` seconds, ShardUnavailable, or the call's own error."""


class ShardHandle(Protocol):
    def call(self, method: str, *arguments: Any) -> Future: ...

    def wait(self, futures: Sequence[Any], timeout: float) -> int | None:
        """Return the index of a future, of any shard, that is done; None if none is within `timeout` seconds."""


class Answered:
    """A future whose answer is known."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:
        return self.answer


class LocalShard:
    """A shard in this process."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard

    def call(self, method: str, *arguments: Any) -> Answered:
        return Answered(getattr(self.shard, method)(*arguments))

    def wait(self, futures: Sequence[Answered], timeout: float) -> int:
        return 0
