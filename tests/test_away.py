"""Stores that fail in ways of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cluster import cli
from tests import tiny
from tests.live import events


class Outage(Exception):
    """Like those of botocore: no OSError."""


class Away(MemoryFileSystem):
    """A store that is away while `outages` last: one ends with every file that is opened for writing."""

    protocol = "away"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    outages = 0
    written = 0

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "w" in mode:
            type(self).written += 1
            if type(self).written > 4 and type(self).outages:
                type(self).outages -= 1
                raise Outage("the endpoint cannot be reached")
        return super()._open(path, mode, **options)


def test_a_store_that_is_away_for_a_while_costs_a_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("away", Away, clobber=True)
    Away.outages = 1
    options = ["--execution=serial", "--steps=900", "--checkpoint-interval=200", "--learner.checkpoints=away://runs"]
    assert cli.main(tiny.train_command(folder, "a", *options)[3:]) == 0
    (failed,) = events(folder, "a", "checkpoint_failed")
    assert "the endpoint cannot be reached" in failed["reason"] and Away.outages == 0
    assert events(folder, "a", "checkpoint")[-1]["env_steps"] == 900 and events(folder, "a", "finished")
