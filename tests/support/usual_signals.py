"""Restores the usual signals for child processes if this process was started to ignore some of them."""

from __future__ import annotations

import signal


def give_children_the_usual_signals() -> None:
    """Give every ignored signal a handler that does nothing: children inherit an ignored signal, but no handler.

    A shell makes a command in the background ignore SIGINT, and nohup makes a command ignore SIGHUP. Without this
    function, children could not be asked to end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
