"""Ends the process when its command has ended, also where an environment left a thread behind."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

LEAVING_S = 10.0
FLUSH_S = 5.0


def leave_in_time(code: int) -> None:
    """Ends the process with this code some seconds from now if a thread that Python waits for is still alive then.

    Python asks its own pools of threads to end before it waits, so these end in that time. What is left hangs. Without
    such a thread the exit takes as long as libraries need.
    """

    def watch() -> None:
        time.sleep(LEAVING_S)
        if held_by():
            last = threading.Thread(target=flush, daemon=True)  # what hangs may hold a stream
            last.start()
            last.join(FLUSH_S)
            os._exit(code)

    if held_by():
        threading.Thread(target=watch, name="leaving", daemon=True).start()


def flush() -> None:
    """Shows what has been printed, as Python itself would in the end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def held_by() -> list[threading.Thread]:
    """The threads that Python waits for at exit."""
    return [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
