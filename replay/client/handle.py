"""A shard as its clients see it: something on which a method can be called and whose answer arrives later.

In one process the answer is there at once (LocalShard); across processes it is a Ray future (replay/process.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from replay.shard import Shard


class ShardUnavailable(Exception):
    """The shard's process was gone or out of reach. It may have done what was asked before that, or not."""


class Future(Protocol):
    def done(self) -> bool: ...

    def result(self, timeout: float | None = None) -> Any:
        """The answer. Raises TimeoutError after `timeout` seconds, ShardUnavailable, or whatever the call raised."""


class ShardHandle(Protocol):
    def call(self, method: str, *arguments: Any) -> Future: ...

    def wait(self, futures: Sequence[Any], timeout: float) -> int | None:
        """Which of several futures, of any shards, has come; None if none has within `timeout` seconds."""


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
