"""Names of folders and URLs are literal: brackets, stars and percent signs in them have no special meaning."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cli.commands import matching
from learner.learner import Learner
from learner.networks.spec import NetworkSpec
from learner.state import dcp
from learner.state.checkpoint import Checkpoints
from replay.shard import Shard
from replay.snapshots.snapshot import Place
from replay.urls import names_in
from tests.support import streams
from tests.support.specs import learner_spec

ODD = ["exp[1]", "a*b", "q?", "half #1", "100%20", "née 東京", "{x,y}", "a::b", "[!a]**"]


def place_in(kind: str, tmp_path: Path, name: str) -> str:
    """Return the URL or path of a new folder with this name."""
    if kind in ("memory", "strict"):
        return f"{kind}://{uuid.uuid4().hex}/{name}"
    folder = tmp_path / uuid.uuid4().hex / name
    return f"file://{folder}" if kind == "file" else str(folder)


class Strict(MemoryFileSystem):  # type: ignore[misc]
    """A memory file system that refuses unknown arguments, as the file system of S3 does."""

    protocol = "strict"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def __init__(self) -> None:
        super().__init__()


fsspec.register_implementation("strict", Strict, clobber=True)
KINDS = st.sampled_from(["path", "file", "memory"])
NAMES = st.one_of(st.sampled_from(ODD), st.text("[]*?#%{}!^-, abé1", min_size=1, max_size=12)).filter(
    lambda name: name.strip() == name
)


@settings(max_examples=25, deadline=None)
@given(kind=KINDS, name=NAMES)
def test_snapshots_are_found_and_pruned_whatever_the_folder_is_called(
    tmp_path_factory: pytest.TempPathFactory, kind: str, name: str
) -> None:
    url = place_in(kind, tmp_path_factory.getbasetemp(), name)
    shard, place, beside = streams.shard(url, tasks=1), Place(url), Place(f"{url}x")
    streams.shard(f"{url}x", tasks=1).save("kept")
    for number in range(3):
        shard.insert("a", number, streams.push(100 * number, 4, tasks=(0,)))
        shard.save(f"{number}")
    assert place.snapshots() == ["0", "1", "2"] and len(packs(place)) == 3
    again = Shard(shard.spec, again=True)
    assert again.origin == "snapshot 2" and again.storage.transitions == [12]
    place.prune(["0"])
    assert place.snapshots() == ["0"] and len(packs(place)) == 1
    assert beside.snapshots() == ["kept"], "only what has exactly this name is removed"


def packs(place: Place) -> list[str]:
    return names_in(place.files, f"{place.root}/packs")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("memory", name) for name in ODD),
        ("path", "a::b*"),
        ("file", "exp[1] %20"),
        ("file", "a::b*"),
        ("strict", "a::b"),
    ],
)
def test_checkpoints_are_kept_and_discarded_whatever_the_folder_is_called(tmp_path: Path, kind: str, name: str) -> None:
    checkpoints = Checkpoints(place_in(kind, tmp_path, name))
    learner = Learner(
        learner_spec(
            NetworkSpec(observation_size=5, action_size=1, num_tasks=1, width=16, policy_width=16), batch_size=4
        )
    )
    for steps in (1, 2, 3):
        begun = checkpoints.begin(steps)
        dcp.save_counters(learner, checkpoints.url(begun))
        dcp.save(learner, checkpoints.url(begun)).result()
        checkpoints.commit(begun, {}, keep=2)
    names = checkpoints.names()
    assert [int(found) for found in names] == [2, 3]
    checkpoints.verify(names[-1])
    dcp.load(learner, checkpoints.url(names[-1]))
    assert names_in(checkpoints.files, checkpoints.root) == names


def test_a_run_of_exactly_this_name_is_reported_and_no_other() -> None:
    known = ["dogs-1", "dogs-2", "dogs-*", "a[1]", "a1"]
    assert matching(known, "dogs-*") == ["dogs-*"]
    assert set(matching(known, "dogs-?")) == set(known[:3])
    assert matching(known, "a[1]") == ["a[1]"]
    assert matching(["a1"], "a[1]") == ["a1"] and matching(["b"], "c*") == ["c*"]
