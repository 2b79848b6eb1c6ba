"""Ctrl-C: the first asks for a clean stop, the second ends the process at once. A closed terminal asks too."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

from cluster.run.presence import Presence
from cluster.run.stop import do_within

LAST_WORDS_S = 2.0


@contextmanager
def stop_requests(say: Callable[[str], None], presence: Presence) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP ask the run to stop; a second one kills this process's children, has the run's state
    say that it was stopped, and exits with code 130.

    A SIGHUP is never counted: one terminal that is closed sends several, and SIGTERM may come with it. Where it is
    ignored, as nohup has it, it stays so.

    They are heard by a thread: the main one may be in an environment that never comes back from its library.
    """
    asks = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        asks.add(signal.SIGHUP)
    heard, wakes = socket.socketpair()
    wakes.setblocking(False)

    def listen() -> None:
        asked = False
        while numbers := heard.recv(1):
            if numbers[0] not in asks:
                continue
            if asked and numbers[0] != signal.SIGHUP:
                end_at_once(presence)
            asked = asked or numbers[0] != signal.SIGHUP
            presence.stop.set()
            words = "stopping: writing a checkpoint; once more stops at once"
            threading.Thread(target=say, args=(words,), daemon=True).start()  # nobody may be reading what is said

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()  # before SIGHUP is blocked below: it takes it for this process
    before = {number: signal.signal(number, lambda *_: None) for number in asks}
    woke = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    # A terminal sends it to all processes that it has. Those begun from here on do not get it: they live until this one
    # ends them.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.set_wakeup_fd(woke)
        for number, handler in before.items():
            signal.signal(number, handler)
        wakes.close()  # which ends the thread
        thread.join()
        heard.close()


def end_at_once(presence: Presence) -> None:
    """Leave nothing but what has been written."""
    try:
        # Ray's own agents would otherwise linger for a minute after the rest of it.
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        # A disk that hangs is not waited for.
        do_within(LAST_WORDS_S, lambda: presence.break_off("at once, by a second signal"))
    finally:
        os._exit(130)
