"""The two ways in which a run can be refused or end early."""

from __future__ import annotations


class ConfigError(Exception):
    """Bad input, found before anything started: one sentence with the field, the value and the way out. Exit code 2."""


class RunFailed(Exception):
    """A part of a running system failed; the message says which and why. Exit code 1."""
