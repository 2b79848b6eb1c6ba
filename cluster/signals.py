"""Ctrl-C: the first asks for a clean stop, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil


@contextmanager
def stop_requests(say: Callable[[str], None], stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set the event; a second signal kills this process's children, and exits with code 130."""
    asked = False

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            # Ray's own agents would otherwise linger for a minute after the rest of it.
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            os._exit(130)
        asked = True
        stop.set()
        say("stopping: writing a checkpoint; once more stops at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
