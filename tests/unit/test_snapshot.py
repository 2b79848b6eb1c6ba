"""Snapshots: incremental, taken while a shard works, verified, and restored into any number of shards of any size."""

from __future__ import annotations

import itertools
import json
import threading
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replay.shard import Shard
from replay.snapshots import snapshot as snapshots
from replay.snapshots.snapshot import Place, SnapshotError
from replay.store.memory import ShardFiles
from replay.store.rows import Push
from tests.support.streams import held, numbers, push, segments, shard, transitions

LIFE = (0, 1)


def fill(one: Shard, pushes: int, first: int = 0, tasks: tuple[int, ...] = (0, 1)) -> None:
    for k in range(first, first + pushes):
        assert one.insert("a", k, push(1 + 100 * k, 5, 5, tasks=tasks)).accepted


def packs(url: str) -> dict[str, int]:
    place = Place(url)
    return {path.rsplit("/", 1)[-1]: place.files.size(path) for path in place.files.glob(f"{place.root}/packs/*")}


@pytest.fixture(params=["folder", "url"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "snapshots") if request.param == "folder" else f"memory://{tmp_path.name}"


def test_restores_content_limiter_generator_and_known_pushes(url: str) -> None:
    one = shard(url)
    fill(one, 30)
    one.settle(0, LIFE)
    one.sample(2, LIFE)
    one.save("1")
    other = shard(url, snapshot="1")
    assert other.origin == "snapshot 1"
    found, known = other.stats(), one.stats()
    assert found.inserts_by_task == known.inserts_by_task and found.limiter.samples == known.limiter.samples
    assert found.transitions_by_task == known.transitions_by_task
    assert numbers(other) == numbers(one) and len(numbers(one)) >= 200
    assert other.insert("a", 29, push(1, 5, 5)).accepted and other.stats().repeated_pushes == 1
    other.settle(2, LIFE)
    mine, theirs = one.sample(1, LIFE).batches, other.sample(1, LIFE).batches
    assert mine is not None and theirs is not None
    for ours, restored in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(ours, restored)


def test_only_what_is_new_is_written_and_what_is_not_needed_goes(url: str) -> None:
    one = shard(url)
    fill(one, 15)
    whole = one.save("1")
    assert one.save("2") == 0
    fill(one, 1, first=15)
    assert 0 < one.save("3") < whole / 10
    place = Place(url)
    assert place.snapshots() == ["1", "2", "3"] and len(packs(url)) == 2
    place.prune(["3"])
    assert place.snapshots() == ["3"] and len(packs(url)) == 2, "the first pack is part of the third snapshot"
    place.verify("3")
    for k in range(4):
        fill(one, 10, first=16 + 10 * k)
        one.save(str(4 + k))
    place.prune(["7"])
    assert sum(packs(url).values()) < 3 * whole, "what the ring has given up goes in time"
    assert numbers(shard(url, snapshot="7")) == numbers(one)


def test_a_restored_shard_goes_on_in_increments(url: str) -> None:
    one = shard(url)
    fill(one, 15)
    whole = one.save("1")
    other = shard(url, snapshot="1")
    fill(other, 1, first=15)
    assert other.save("2") < whole / 10
    assert numbers(shard(url, snapshot="2")) == numbers(other)


def test_a_snapshot_is_there_when_all_shards_have_written_theirs(url: str) -> None:
    two = [shard(url, index, 2) for index in range(2)]
    for one in two:
        fill(one, 3)
    two[0].save("1")
    assert Place(url).snapshots() == []
    two[1].save("1")
    two[0].save("2")
    assert Place(url).snapshots() == ["1"]
    again = Shard(replace(two[0].spec, snapshot=""), again=True)
    assert again.origin == "snapshot 1", "one that comes back takes the newest that is whole"


def test_one_that_comes_back_takes_the_newest_that_is_sound(tmp_path: Path) -> None:
    one = shard(str(tmp_path))
    kept = []
    for name in range(3):
        fill(one, 3, first=3 * name)
        one.save(str(name))
        kept.append(numbers(one))
    packs_by_age = sorted((tmp_path / "packs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for damaged, origin, found in ((2, "snapshot 1", kept[1]), (1, "snapshot 0", kept[0]), (0, "empty", [])):
        content = bytearray(packs_by_age[damaged].read_bytes())
        content[5] ^= 1
        packs_by_age[damaged].write_bytes(content)
        again = Shard(one.spec, again=True)
        assert again.origin == origin and numbers(again) == found
        assert packs_by_age[damaged].name in again.problem
        assert again.limiter.inserts.tolist() == [len(found)] * 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "no manifest", "format"])
def test_a_damaged_snapshot_is_named(tmp_path: Path, damage: str) -> None:
    one = shard(str(tmp_path))
    fill(one, 5)
    one.save("1")
    (pack,) = (tmp_path / "packs").iterdir()
    manifest = tmp_path / "1" / "shard-0.json"
    file = pack if damage in ("flip", "truncate", "remove") else manifest
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-3])
    elif damage in ("remove", "no manifest"):
        file.unlink()
    elif damage == "manifest":
        file.write_bytes(content.replace(b'"inserts": [50', b'"inserts": [51'))
    else:
        saved = json.loads(content)
        saved["body"]["format"] = "brc-replay-9"
        saved["crc32"] = zlib.crc32(json.dumps(saved["body"]).encode())
        file.write_text(json.dumps(saved))
    for read in (lambda: Place(str(tmp_path)).verify("1"), lambda: shard(str(tmp_path), snapshot="1")):
        with pytest.raises(SnapshotError, match=file.name):
            read()


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path) -> None:
    one = shard(str(tmp_path))
    fill(one, 2)
    one.save("1")
    (pack,) = (tmp_path / "packs").iterdir()
    content = pack.read_bytes()
    for at in range(0, len(content), 37):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        pack.write_bytes(flipped)
        with pytest.raises(SnapshotError, match=r"rows \d+ to \d+ of [ab], do not match their checksum"):
            Place(str(tmp_path)).verify("1")


def test_a_full_disk_leaves_the_last_snapshot_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = shard(str(tmp_path))
    fill(one, 5)
    one.save("1")
    fill(one, 5, first=5)

    class Full(Place):
        def open_new(self, path: str) -> Any:
            super().open_new(path).close()
            return open("/dev/full", "wb", buffering=0)

    assert one.snapshotter is not None
    monkeypatch.setattr(one.snapshotter, "place", Full(str(tmp_path)))
    with pytest.raises(OSError, match="No space left"):
        one.save("2")
    monkeypatch.undo()
    assert Place(str(tmp_path)).snapshots() == ["1"] and len(packs(str(tmp_path))) == 1
    Place(str(tmp_path)).verify("1")
    one.save("3")
    assert numbers(shard(str(tmp_path), snapshot="3")) == numbers(one)


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
@pytest.mark.parametrize("capacity", [60, 200, 500])
def test_other_shards_of_another_size(url: str, shards: int, capacity: int) -> None:
    """The content of two shards is dealt to any number of shards, each transition once and whole, the newest if not all
    fit."""
    two = [shard(url, index, 2) for index in range(2)]
    stream = []
    for k in range(40):
        assert two[k % 2].insert("a", k, push(1 + 100 * k, 5, 5)).accepted
        stream += [*range(1 + 100 * k, 6 + 100 * k), *range(7 + 100 * k, 12 + 100 * k)]
    for one in two:
        one.settle(20, LIFE)
        one.save("1")
    dealt = [shard(url, index, shards, "1", capacity=capacity) for index in range(shards)]
    for task in (0, 1):
        before = Counter(number for one in two for number in numbers(one, task))
        found = Counter(number for one in dealt for number in numbers(one, task))
        assert max(found.values()) == 1 and found <= before
        if shards * capacity >= 1.3 * len(stream):
            assert found == before
        else:
            assert len(found) >= min(len(before), shards * capacity) - 15 * shards
            oldest_kept = stream.index(min(found))
            assert oldest_kept >= len(stream) - len(found) - 45, "the oldest are dropped first"
        for one in dealt:
            kept = held(one.storage.rings[task])
            assert all(t.following == t.observation + 1 == t.reward + 1 for t in transitions(kept))
    assert max(one.storage.return_maximum[0] for one in dealt) == 3901.0
    inserts = np.sum([one.limiter.inserts for one in dealt], axis=0)
    assert inserts.tolist() == [400, 400]
    assert sum(one.limiter.samples for one in dealt) == 160


def test_neither_burst_nor_stall_after_a_restore(url: str) -> None:
    """Before the save no batch is due, and after a restore no batch is due on all shards together."""
    one = shard(url)
    fill(one, 10)
    one.settle(0, LIFE)
    while one.sample(4, LIFE).batches is not None:
        pass
    taken = one.limiter.samples // 4
    one.save("1")
    for shards in (1, 2, 3):
        dealt = [shard(url, index, shards, "1") for index in range(shards)]
        for index, part in enumerate(dealt):
            part.settle(taken // shards + (index < taken % shards), LIFE)
        due = [part.limiter.batches_allowed() for part in dealt]
        # Every shard has a whole warm-up here, which a plan divides among shards. So fewer batches are due.
        assert sum(due) == 0
        assert all(part.insert("b", 1, push(9000, 5)).accepted for part in dealt)


def test_a_task_that_joins_warms_up_and_does_not_hold_up_the_others(url: str) -> None:
    one = shard(url)
    fill(one, 10)
    one.save("1")
    other = shard(url, snapshot="1", tasks=3)
    assert other.limiter.inserts.tolist() == [100, 100, 95]
    assert other.storage.transitions == [100, 100, 0]
    other.settle(95, LIFE)
    assert other.sample(1, LIFE).batches is None, "it has nothing to learn from yet"
    assert other.insert("b", 1, Push({2: segments(1, [5])}, {})).accepted
    assert other.insert("b", 2, Push({task: segments(1, [1]) for task in range(3)}, {})).accepted
    batches = other.sample(1, LIFE).batches
    assert batches is not None and set(batches.task_ids.ravel()) == {0, 1, 2}


def test_what_does_not_fit_is_refused_by_name(url: str) -> None:
    one = shard(url)
    fill(one, 2)
    one.save("1")
    with pytest.raises(SnapshotError, match="holds \\['b'\\], which the run does not train on"):
        shard(url, snapshot="1", tasks=1)
    with pytest.raises(SnapshotError, match="a has observations of"):
        shard(url, snapshot="1", observation_shapes=((3,), (2,)))
    with pytest.raises(SnapshotError, match=r"shard-0.json is missing"):
        shard(url, snapshot="2")


def test_float16_takes_over_float32(url: str) -> None:
    one = shard(url)
    fill(one, 2)
    one.save("1")
    assert numbers(shard(url, snapshot="1", dtype="float16")) == numbers(one)


def test_a_snapshot_of_a_shard_at_work_is_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushes overwrite the ring while snapshots are written. A snapshot holds consecutive pushes up to its moment."""
    monkeypatch.setattr(snapshots, "PIECE_BYTES", 20_000)
    one = shard(str(tmp_path), capacity=20_000, observation_shapes=((50,), (50,)))
    stop, overtaken = threading.Event(), 0

    def insert(k: int) -> None:
        rows = segments(1 + 20 * k, [5, 5], 50)
        assert one.insert("a", k, Push({0: rows, 1: rows}, {}), is_rest=True).accepted

    def write() -> None:
        for k in itertools.count(1):
            if stop.is_set():
                return
            insert(k)

    insert(0)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in itertools.count():
            before = one.storage.rings[0].head
            one.save(f"{number:06d}")
            overtaken += one.storage.rings[0].head > before
            if number >= 24 and one.storage.rings[0].head > 1.5 * one.storage.rings[0].rows:
                break
    finally:
        stop.set()
        writer.join()
    assert overtaken > 3, "nothing was pushed meanwhile"
    short = 0
    names = Place(str(tmp_path)).snapshots()
    for name in names[:: len(names) // 24]:
        other = shard(str(tmp_path), capacity=20_000, observation_shapes=((50,), (50,)), snapshot=name)
        for task in (0, 1):
            kept = held(other.storage.rings[task])
            found = transitions(kept)
            pushes = sorted({int(t.reward - 1) // 20 for t in found})
            if not pushes:  # the ring has given up all content before it could be written
                short += 1
                continue
            assert pushes == list(range(pushes[0], pushes[-1] + 1))
            assert (kept.observations == kept.observations[:, :1]).all(), "a torn row"
            assert (pushes[-1] + 1) * 10 == other.limiter.inserts[task], "counters of another moment"
            assert other.memory.sequences["a"] == pushes[-1]
            short += len(found) < 19_000 and pushes[0] > 0
    print(f"{short} of 48 lack what was given up before it could be written")


@pytest.mark.parametrize("goes_on", [0, 20], ids=["it stood still", "it went on while it was cut off"])
def test_files_that_a_shard_has_left_are_not_taken_for_its_newest(tmp_path: Path, goes_on: int) -> None:
    """A node is cut off, and its shard moves to another node. When that is lost too, the shard comes back to the first
    node, whose files are out of date: it must restore the snapshot instead."""
    here, there = tmp_path / "here", tmp_path / "there"
    spec = shard(str(tmp_path / "snapshots")).spec
    one = Shard(replace(spec, folder=str(here)))
    fill(one, 3)
    one.save("1")
    fill(one, 1, first=3)
    moved = Shard(replace(spec, folder=str(there)), again=True)
    assert moved.origin == "snapshot 1"
    moved.catch_up([20, 20])
    fill(moved, 5, first=10)
    moved.save("2")
    newest = numbers(moved)
    moved.close(False)
    killed = Shard(replace(spec, folder=str(there)), again=True)
    assert killed.origin == "files" and numbers(killed) == newest, "a process that is killed on its node loses nothing"
    fill(one, goes_on, first=50)
    one.close(False)
    back = Shard(replace(spec, folder=str(here)), again=True)
    assert back.origin == "snapshot 2" and numbers(back) == newest and not back.caught_up
    assert f"{here} is out of date: the shard has left it" in back.problem
    killed.close(False)
    assert Shard(replace(spec, folder=str(there)), again=True).origin == "snapshot 2", "now these are left"


def test_removing_snapshots_leaves_word_of_where_the_shards_are(tmp_path: Path) -> None:
    one = Shard(replace(shard(str(tmp_path / "snapshots")).spec, folder=str(tmp_path / "files")))
    place = Place(str(tmp_path / "snapshots"))
    assert isinstance(one.memory, ShardFiles)
    assert place.home(0) == one.memory.token
    one.save("1")
    place.prune([])
    assert place.home(0) == one.memory.token and place.snapshots() == []
