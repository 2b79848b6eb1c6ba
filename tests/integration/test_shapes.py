"""Tests of resumes: a run goes on only with unchanged environments, and with its tasks in the same order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import beside

CHANGES = [
    ("4 2 20", "its observations were 3 numbers when run r was trained, and are 4 numbers now", 2),
    ("3 1 20", "its actions were 2 numbers when run r was trained, and are 1 numbers now", 2),
    (
        "3 2 20 1000",
        "its bounds of actions were float32 from -1.0 to 1.0 when run r was trained, and are float32 from -1000.0 to "
        "1000.0 now",
        2,
    ),
    ("3 2 30", "its episodes were 20 steps at most when run r was trained, and are 30 steps at most now", 0),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of two tasks."""
    folder = beside.prepare(tmp_path_factory.mktemp("shapes"))
    done = beside.train(folder, "Still", "r", "--execution=serial", "--steps=400", *tasks("Still", "Wandering"))
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


def tasks(*names: str) -> list[str]:
    return ["--tasks", *(f"gymnasium/{beside.MODULE}:{name}-v0" for name in names)]


@pytest.mark.parametrize(("sizes", "complaint", "evaluated"), CHANGES)
def test_an_environment_that_has_changed_is_told(here: Path, sizes: str, complaint: str, evaluated: int) -> None:
    (here / "sizes").write_text(sizes)
    options = ["--steps=600", "--resume", "--execution=serial", *tasks("Still", "Wandering")]
    try:
        refused = beside.train(here, "Still", "r", *options)
        scored = beside.brc(here, "eval", "r", "--episodes=1")
    finally:
        (here / "sizes").unlink()
    assert refused.returncode == 2 and f"--tasks gymnasium/wandering_envs:Still-v0: {complaint}" in refused.stderr
    assert "`brc add-task`" in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert scored.returncode == evaluated, scored.stderr


def test_another_order_is_told(here: Path) -> None:
    done = beside.train(
        here, "Still", "r", "--steps=600", "--resume", "--execution=serial", *tasks("Wandering", "Still")
    )
    names = [f"gymnasium/{beside.MODULE}:{name}-v0" for name in ("Still", "Wandering")]
    assert done.returncode == 2 and f"--tasks: run r was trained on {names}, in this order" in done.stderr
