"""What is printed, for whoever watches: that they stop watching ends no run, and ends other commands quietly."""

from __future__ import annotations

import io
import os
import select
import socket
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, TextIO, cast

NOBODY_READS = 141  # what a shell says of a command that a closed pipe has ended
PATIENCE_S = 1.0  # for which a reader that has stopped reading is waited for
Outlet = io.FileIO | socket.socket
LEFT_OUT = b"\n(lines are left out here: nobody read them)\n"


class OutputLost(Exception):
    """The output that a command is called for cannot be written."""


class View:
    """A text stream that never fails, and never waits for long.

    From the first failure to write it on it is silent, and `lost` says why. A pipe that nobody reads any more, a
    terminal that is gone, a full disk and a file that is closed are such failures. A character that the stream's
    encoding lacks is none: it is written as an escape. While a pipe or a terminal takes no more, as of a pager that is
    at rest or after Ctrl-S, what is written is left out.

    Args:
        stream: what is written to; None for one that was closed before this process began.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self.lost = "" if stream else "it was closed when this began"
        self.stream: IO[str] = stream or io.StringIO()
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        self.outlet = self._unblocked()
        self.leaves_out = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if not self.lost:
            try:
                if self.outlet is None:
                    self.stream.write(text)
                else:
                    self._offer(text.encode(self.encoding or "utf-8", "backslashreplace"))
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if not self.lost:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _unblocked(self) -> Outlet | None:
        """What the stream's pipe, terminal or socket can be written through without a wait; None where there is nothing
        of the kind.

        The stream's own descriptor is left as it is: other processes share its settings.
        """
        try:
            self.stream.flush()
            number = self.stream.fileno()
            kind = os.fstat(number).st_mode
            if stat.S_ISSOCK(kind):
                return socket.socket(fileno=os.dup(number))
            if stat.S_ISFIFO(kind) or os.isatty(number):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
                return io.FileIO(os.open(f"/proc/self/fd/{number}", flags), "w")
        except (OSError, ValueError):
            pass  # it is no file, or cannot be opened: what is wrong with it is seen when it is written
        return None

    def _offer(self, data: bytes) -> None:
        """Write what there is room for."""
        assert self.outlet is not None
        deadline = time.monotonic()
        if self.leaves_out:
            data = LEFT_OUT + data
        else:
            deadline += PATIENCE_S
        room = select.poll()
        room.register(self.outlet, select.POLLOUT)
        while data:
            data = data[taken(self.outlet, data) :]
            left = deadline - time.monotonic()
            if data and left <= 0.0:
                self.leaves_out = True
                return
            if data:
                room.poll(1000.0 * left)
        self.leaves_out = False

    def _lose(self, error: OSError | ValueError) -> None:
        self.lost = str(error)
        if self.outlet is not None:
            self.outlet.close()
            self.outlet = None
        with suppress(OSError, ValueError):  # what is not a file has nothing to send elsewhere
            silence(self.stream.fileno())


class Result(View):
    """The output that a command is called for: its reader is waited for. Raises OutputLost, once, when it cannot be
    written."""

    def _unblocked(self) -> Outlet | None:
        return None

    def _lose(self, error: OSError | ValueError) -> None:
        super()._lose(error)
        raise OutputLost from error


def taken(outlet: Outlet, data: bytes) -> int:
    """How much of this was written; never waits."""
    try:
        if isinstance(outlet, socket.socket):
            return outlet.send(data, socket.MSG_DONTWAIT)
        return outlet.write(data) or 0
    except BlockingIOError:
        return 0


def viewed(stream: IO[str] | View) -> View:
    """A stream as one that never fails."""
    return stream if isinstance(stream, View) else View(stream)


def silence(descriptor: int) -> None:
    """Have nothing become of what is still written there: by buffers when Python ends, by libraries, by children."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


def shown(command: Callable[[], int], lasting: bool = False) -> int:
    """Call a command whose standard output somebody may stop reading. Returns its exit code.

    A `lasting` one does its work whoever watches. Another ends when its output is lost: with NOBODY_READS if its pipe
    is closed, else with 1 and a sentence.
    """
    open_standard_files()
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, (View if lasting else Result)(before[0]))
    sys.stderr = cast(TextIO, View(before[1]))
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except OutputLost as lost:
        if isinstance(lost.__cause__, BrokenPipeError):
            return NOBODY_READS
        print(f"standard output cannot be written: {lost.__cause__}", file=sys.stderr, flush=True)
        return 1
    finally:
        sys.stdout, sys.stderr = before


def open_standard_files() -> None:
    """Take the numbers of standard files that are closed: the next file opened would get one, and with it all that a
    library or a child prints."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the least number that is free
            os.set_inheritable(descriptor, True)
