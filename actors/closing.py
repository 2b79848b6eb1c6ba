"""Closes environments and ignores the errors of closing: environments are other people's code."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

CLOSE_S = 5.0


class Closable(Protocol):
    """An object that can be closed."""

    def close(self) -> object: ...


def close(what: Closable) -> None:
    """Close an environment and ignore its errors: its results have been read already."""
    with suppress(Exception, SystemExit):
        what.close()


def close_all(what: Iterable[Closable]) -> None:
    """Close several environments and ignore their errors."""
    for one in what:
        close(one)


def close_in_time(what: Iterable[Closable]) -> None:
    """Close several environments in a thread, and wait for it CLOSE_S seconds at most."""
    thread = threading.Thread(target=close_all, args=(what,), name="closing", daemon=True)
    thread.start()
    thread.join(CLOSE_S)
