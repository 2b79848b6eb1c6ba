"""Handles signals: the first Ctrl-C asks for a clean stop, the second ends the process. A closed terminal asks too."""

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
    """Let SIGINT, SIGTERM and SIGHUP ask the run to stop. A second signal kills this process's children, records that
    the run was stopped, and exits with code 130.

    A SIGHUP is never counted: one terminal that is closed sends several, and SIGTERM may come with it. Where SIGHUP is
    ignored, as under nohup, it stays ignored.

    A thread handles the signals: the main thread may be in an environment whose library never returns.
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
            threading.Thread(target=say, args=(words,), daemon=True).start()  # printing may block

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()  # before SIGHUP is blocked below: this thread takes it for the process
    before = {number: signal.signal(number, lambda *_: None) for number in asks}
    woke = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    # A terminal sends SIGHUP to all of its processes. Processes started from here on block it: they live until this
    # process ends them.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.set_wakeup_fd(woke)
        for number, handler in before.items():
            signal.signal(number, handler)
        wakes.close()  # ends the thread
        thread.join()
        heard.close()


def end_at_once(presence: Presence) -> None:
    """Kill all children, record that the run was stopped, and exit with code 130."""
    try:
        # Ray's own agents would otherwise live for a minute longer than the rest of Ray.
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        # Do not wait for a disk that hangs.
        do_within(LAST_WORDS_S, lambda: presence.break_off("at once, by a second signal"))
    finally:
        os._exit(130)
