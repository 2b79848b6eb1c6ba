"""Closes environments, which are other people's code: what closing one raises ends nothing of ours."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

CLOSE_S = 5.0


class Closable(Protocol):
    """Whatever can be closed."""

    def close(self) -> object: ...


def close(what: Closable) -> None:
    """Close an environment, whatever that raises: its results are there already."""
    with suppress(Exception, SystemExit):
        what.close()


def close_all(what: Iterable[Closable]) -> None:
    """Close several environments, each whatever the others raise."""
    for one in what:
        close(one)


def close_in_time(what: Iterable[Closable]) -> None:
    """Close several environments; leave what takes longer than some seconds to itself."""
    thread = threading.Thread(target=close_all, args=(what,), name="closing", daemon=True)
    thread.start()
    thread.join(CLOSE_S)
