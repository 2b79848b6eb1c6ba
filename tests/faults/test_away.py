"""Tests of checkpoint stores that cannot be reached for a while, or that hang."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cluster.cli import main as cli
from tests.support import tiny
from tests.support.live import ended_well, events, live, ray_process, wait_for


class Outage(Exception):
    """A store's error that is not an OSError, like the errors of botocore."""


class Away(MemoryFileSystem):  # type: ignore[misc]
    """A store that refuses to open `outages` files for writing, from the fifth file on."""

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


def test_a_checkpoint_that_takes_unusually_long_is_told_once(folder: Path) -> None:
    """The learner is suspended for a while, as if its store hung. The late checkpoint is told once, then written."""
    options = ("--steps=3000", "--checkpoint-interval=200")
    with live(folder, "a", *options, before="import cluster.supervise.saver as s; s.CALL_TIMEOUT_S = 5.0") as process:
        wait_for(process, lambda: events(folder, "a", "learner_ready"))
        learner = ray_process(process, "LearnerProcess")
        learner.suspend()
        wait_for(process, lambda: events(folder, "a", "checkpoint_late"))
        learner.resume()
        ended_well(process)
    late, *others = events(folder, "a", "checkpoint_late")  # on a busy machine others may be late too
    assert late["env_steps"] not in [other["env_steps"] for other in others]
    assert "not all parts have written their share after" in late["reason"]
    assert late["env_steps"] in [event["env_steps"] for event in events(folder, "a", "checkpoint")]
