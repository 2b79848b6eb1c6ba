"""What is printed, for whoever watches: that they stop watching ends no run, and ends other commands quietly."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, TextIO, cast

NOBODY_READS = 141  # what a shell says of a command that a closed pipe has ended


class OutputLost(Exception):
    """The output that a command is called for cannot be written."""


class View:
    """A text stream that never fails. From the first failure to write it on it is silent, and `lost` says why.

    A pipe that nobody reads any more, a terminal that is gone, a full disk and a file that is closed are such failures.
    A character that the stream's encoding lacks is none: it is written as an escape.

    Args:
        stream: what is written to; None for one that was closed before this process began.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self.lost = "" if stream else "it was closed when this began"
        self.stream: IO[str] = stream or io.StringIO()
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if not self.lost:
            try:
                self.stream.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if not self.lost:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: OSError | ValueError) -> None:
        self.lost = str(error)
        with suppress(OSError, ValueError):  # what is not a file has nothing to send elsewhere
            silence(self.stream.fileno())


class Result(View):
    """The output that a command is called for. Raises OutputLost, once, when it cannot be written."""

    def _lose(self, error: OSError | ValueError) -> None:
        super()._lose(error)
        raise OutputLost from error


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
