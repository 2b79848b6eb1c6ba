"""Ends the process after its command has ended, even if an environment left a thread behind."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

LEAVING_S = 10.0
FLUSH_S = 5.0


def leave_in_time(code: int) -> None:
    """End the process with this code in LEAVING_S seconds if a thread that Python waits for is still alive then.

    Python asks its own pools of threads to end before it waits, so their threads end in that time. A thread that is
    left then hangs. Without a thread to wait for, the exit takes as long as libraries need.
    """

    def watch() -> None:
        time.sleep(LEAVING_S)
        if held_by():
            last = threading.Thread(target=flush, daemon=True)  # the thread that hangs may hold a stream
            last.start()
            last.join(FLUSH_S)
            os._exit(code)

    if held_by():
        threading.Thread(target=watch, name="leaving", daemon=True).start()


def flush() -> None:
    """Flush the output streams, as Python itself does at exit."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def held_by() -> list[threading.Thread]:
    """Return the threads that Python waits for at exit."""
    return [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
