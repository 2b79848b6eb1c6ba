"""Output streams that may lose their reader. A lost reader ends no run, and ends other commands quietly."""

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

NOBODY_READS = 141  # exit code in a shell of a command that a closed pipe has ended
PATIENCE_S = 1.0  # time to wait for a reader that has stopped reading
Outlet = io.FileIO | socket.socket
LEFT_OUT = b"\n(lines are left out here: nobody read them)\n"


class OutputLost(Exception):
    """The standard output of a command cannot be written."""


class View:
    """A text stream that never fails, and never waits for long.

    After the first failed write it is silent, and `lost` says why. Failures are a pipe without a reader, a closed
    terminal, a full disk and a closed file. A character that the stream's encoding lacks is written as an escape. While
    a pipe or a terminal accepts no more, for example of an idle pager or after Ctrl-S, text is left out.

    Args:
        stream: stream to write to; None if it was closed before this process began.
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
        """Return a non-blocking outlet to the stream's pipe, terminal or socket; None for any other stream.

        The stream's own descriptor stays unchanged: other processes share its settings.
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
            pass  # no file, or it cannot be opened: a later write shows the fault
        return None

    def _offer(self, data: bytes) -> None:
        """Write as much as the outlet accepts. Leave out the rest after at most PATIENCE_S."""
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
        with suppress(OSError, ValueError):  # a stream without a descriptor needs no redirection
            silence(self.stream.fileno())


class Result(View):
    """Standard output of a command whose purpose is its output. Writes wait for the reader. Raises OutputLost, once,
    when it cannot be written."""

    def _unblocked(self) -> Outlet | None:
        return None

    def _lose(self, error: OSError | ValueError) -> None:
        super()._lose(error)
        raise OutputLost from error


def taken(outlet: Outlet, data: bytes) -> int:
    """Write data without waiting. Return the number of bytes written."""
    try:
        if isinstance(outlet, socket.socket):
            return outlet.send(data, socket.MSG_DONTWAIT)
        return outlet.write(data) or 0
    except BlockingIOError:
        return 0


def viewed(stream: IO[str] | View) -> View:
    """Return the stream as a View, which never fails."""
    return stream if isinstance(stream, View) else View(stream)


def silence(descriptor: int) -> None:
    """Redirect a descriptor to /dev/null. Buffers at exit, libraries and child processes may still write to it."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


def shown(command: Callable[[], int], lasting: bool = False) -> int:
    """Call a command whose standard output may lose its reader. Return its exit code.

    A `lasting` command goes on without a reader. Any other command ends when its output is lost: with NOBODY_READS if
    its pipe is closed, else with 1 and a message.
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
    """Open /dev/null on closed standard descriptors. Else the next opened file would get such a number, and receive all
    that a library or a child prints."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            os.set_inheritable(descriptor, True)
