"""Closes environments, which are other people's code: what closing one raises ends nothing of ours."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol


class Closable(Protocol):
    """Whatever can be closed."""

    def close(self) -> object: ...


def close(what: Closable) -> None:
    """Close an environment, whatever that raises: its results are there already."""
    with suppress(Exception, SystemExit):
        what.close()


def close_all(what: Iterable[Closable]) -> None:
    """Close several environments, each whatever the others raise."""
    for one in what:
        close(one)
