"""The two errors of a run: it was refused before it started, or it failed."""

from __future__ import annotations

from actors.causes import Cause


class ConfigError(Exception):
    """Bad input, found before anything started. The message names the field, the value and the remedy. Exit code 2."""


class RunFailed(Exception):
    """A part of a running system failed. The message says which and why; `cause` gives the kind. Exit code 1."""

    def __init__(self, message: str, cause: Cause = Cause.DIED) -> None:
        super().__init__(message)
        self.cause = cause
