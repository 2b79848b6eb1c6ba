"""The two ways in which a run can be refused or end early."""

from __future__ import annotations

from actors.causes import Cause


class ConfigError(Exception):
    """Bad input, found before anything started: one sentence with the field, the value and the way out. Exit code 2."""


class RunFailed(Exception):
    """A part of a running system failed; the message says which and why, `cause` in a word. Exit code 1."""

    def __init__(self, message: str, cause: Cause = Cause.DIED) -> None:
        super().__init__(message)
        self.cause = cause
