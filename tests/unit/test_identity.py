"""A copied run gets its own id, which names it in shared memory, in Ray and at URLs. A moved run keeps its id."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from cluster.preflight.validation import validate
from cluster.run.folder import open_run
from tests.support import tiny


def opened(runs: Path, name: str, checkpoints: str = "") -> str:
    """Open a run that goes on, with or without a checkpoint, and return its id."""
    config = tiny.config(name=name, runs_folder=str(runs))
    config = replace(config, learner=replace(config.learner, checkpoints=checkpoints))
    with open_run(validate(config), "quickstart", again=True) as run:
        return run.id


def test_a_copy_beside_its_live_original_has_an_id_of_its_own(tmp_path: Path) -> None:
    plan = validate(tiny.config(name="a", runs_folder=str(tmp_path)))
    with open_run(plan, "quickstart") as original:
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        copy = opened(tmp_path, "b")
        assert copy != original.id and (tmp_path / "a" / "id").read_text() == original.id
    assert (opened(tmp_path, "a"), opened(tmp_path, "b")) == (original.id, copy)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_one_that_was_moved_keeps_it(tmp_path: Path, elsewhere: bool) -> None:
    first = opened(tmp_path, "a")
    place = tmp_path / "other" if elsewhere else tmp_path
    place.mkdir(exist_ok=True)
    (tmp_path / "a").rename(place / "b")
    assert opened(place, "b") == first
    shutil.copytree(place / "b", place / "c")
    assert opened(place, "c") != first
    assert opened(place, "b") == first


def test_of_two_whose_original_is_gone_one_keeps_it(tmp_path: Path) -> None:
    first = opened(tmp_path, "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a").rename(tmp_path / "c")
    assert {opened(tmp_path, "b") == first, opened(tmp_path, "c") == first} == {True, False}


def test_a_copy_whose_checkpoints_are_at_a_url_is_refused(tmp_path: Path) -> None:
    runs, store = tmp_path / "runs", str(tmp_path / "store")
    first = opened(runs, "a", checkpoints=store)
    shutil.copytree(runs / "a", runs / "b")
    with pytest.raises(
        ConfigError, match=f"run b is a copy of {runs}/a, .*--learner.checkpoints {store}.*brc add-task"
    ):
        opened(runs, "b", checkpoints=store)
    assert (opened(runs, "a", checkpoints=store), (runs / "b" / "id").read_text()) == (first, first)


def test_an_id_that_was_not_written_is_none(tmp_path: Path) -> None:
    """A full disk leaves an empty file. Two runs with an empty id would share everything that is kept under it."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "id").touch()
    first, second = opened(tmp_path, "a"), opened(tmp_path, "b")
    assert first.startswith("a-") and second.startswith("b-")
    assert (opened(tmp_path, "a"), opened(tmp_path, "b")) == (first, second)
