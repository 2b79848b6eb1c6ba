"""Ctrl-C: the first asks for a clean stop, the second ends the process at once. A closed terminal asks too."""

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
    """SIGINT, SIGTERM and SIGHUP set the event; a second one kills this process's children, and exits with code 130.

    A SIGHUP is never counted: one terminal that is closed sends several, and SIGTERM may come with it. Where it is
    ignored, as nohup has it, it stays so.
    """
    asked = False

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if asked and number != signal.SIGHUP:
            # Ray's own agents would otherwise linger for a minute after the rest of it.
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            os._exit(130)
        asked = asked or number != signal.SIGHUP
        stop.set()
        words = "stopping: writing a checkpoint; once more stops at once"
        threading.Thread(target=say, args=(words,), daemon=True).start()  # the main thread may be writing just now

    with hang_up_kept_from_children() as heard:
        numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if heard else [])]
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def hang_up_kept_from_children() -> Iterator[bool]:
    """Whether SIGHUP is not ignored. A terminal sends it to all processes that it has: those begun by this thread
    inside the block do not get it, and live until this one ends them."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        yield False
        return
    over = threading.Event()
    threading.Thread(target=over.wait, name="signals", daemon=True).start()  # takes it for this process
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield True
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        over.set()
