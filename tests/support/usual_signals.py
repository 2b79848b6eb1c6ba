"""Children get the usual signals, also where this process was started to ignore some of them."""

from __future__ import annotations

import signal


def give_children_the_usual_signals() -> None:
    """A shell that starts a command in the background has it ignore SIGINT, nohup has it ignore SIGHUP, and children
    inherit that: they could not be asked to end. What is ignored goes to a function that does nothing instead, as
    functions are not inherited."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
