"""The end of environments, which are somebody else's: what closing one raises ends nothing of ours."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

CLOSE_S = 5.0


class Closable(Protocol):
    def close(self) -> object: ...


def close(what: Closable) -> None:
    """Close it, whatever that raises: what was wanted of it is there already."""
    with suppress(Exception, SystemExit):
        what.close()


def close_all(what: Iterable[Closable]) -> None:
    for one in what:
        close(one)


def close_in_time(what: Iterable[Closable]) -> None:
    """Close each of them, and leave what takes longer than some seconds to itself."""
    thread = threading.Thread(target=close_all, args=(what,), name="closing", daemon=True)
    thread.start()
    thread.join(CLOSE_S)
