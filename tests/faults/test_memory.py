"""Tests of a shard's files, which outlive its process: after a kill at any line, torn, foreign, in use, too large."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from replay.rate_limiter import RateLimit
from replay.shard import Shard, ShardSpec
from replay.store import locations, memory
from replay.store.locations import choose_folder, node_memory
from replay.store.memory import FilesError, FilesInUse, ShardFiles
from tests.support.streams import held, push, spec, transitions

STATE = [("value", "<i8")]
PLACES = ["disk", "tmpfs"] if Path("/dev/shm").is_dir() else ["disk"]


@pytest.fixture(params=PLACES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "disk":
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="brc-test-") as path:
        yield Path(path)


def files(folder: Path, run: str = "r", nbytes: int = 8192) -> ShardFiles:
    return ShardFiles(folder / "shard-0", {"run": run}, nbytes, list(STATE))


def shard(folder: Path, **changes: object) -> Shard:
    of = ShardSpec(
        index=0,
        storage=spec(2),
        limit=RateLimit(samples_per_step=4, batch_size=4, warmup=5, max_ahead=1000),
        seed=0,
        run="r",
        folder=str(folder / "shard-0"),
    )
    return Shard(replace(of, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["push", "snapshot"])
def test_killed_at_any_line_nothing_acknowledged_is_lost(folder: Path, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_at", str(folder), kind],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > (150 if kind == "push" else 100)


def test_a_state_that_is_half_written_is_not_taken(folder: Path) -> None:
    """A commit is cut off after every byte. The files open with the state before or after it, never with another."""
    one = files(folder)
    for value in (7, 8):
        one.state["value"] = value
        one.commit()
    header = one.folder / "header"
    before = header.read_bytes()
    one.state["value"] = 9
    one.commit()
    after = header.read_bytes()
    one.close(remove=False)
    changed = [i for i in range(len(after)) if after[i] != before[i]]
    assert changed
    opened = set()
    for at in range(changed[0], changed[-1] + 2):
        header.write_bytes(after[:at] + before[at:])
        again = files(folder)
        assert again.recovered
        opened.add(int(again.state["value"]))
        assert again.state["value"] == (9 if at > changed[-1] else 8)
        again.close(remove=False)
    assert opened == {8, 9}


def test_a_process_that_comes_back_has_everything(folder: Path) -> None:
    one = shard(folder)
    one.insert("a", 3, push(1, 5, 5))
    one.settle(0, (0, 1))
    assert one.sample(2, (0, 1)).batches is not None
    one.close(remove=False)
    again = shard(folder)
    assert (again.origin, again.problem) == ("files", "")
    found, known = again.stats(), one.stats()
    assert found.inserts_by_task == known.inserts_by_task and found.limiter.samples == known.limiter.samples
    assert found.transitions_by_task == known.transitions_by_task
    assert again.insert("a", 3, push(1, 5, 5)).accepted
    assert again.stats().repeated_pushes == 1
    assert again.storage.return_maximum[0] == 1.0
    assert again.sample(1, (0, 1)).granted == 1, "its life is known still"
    again.close(remove=True)
    assert not (folder / "shard-0").exists()


def test_a_process_killed_before_its_first_push_comes_back_empty(folder: Path) -> None:
    shard(folder).close(remove=False)
    again = shard(folder)
    assert again.origin == "empty" and again.storage.transitions == [0, 0]


def test_files_are_held_by_one_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LOCK_TIMEOUT_S", 0.2)
    one = files(folder)
    with pytest.raises(FilesInUse, match="held by another process"):
        files(folder)
    one.close(remove=False)
    files(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("short rows", "rows has .* it is torn"),
        ("no rows", "rows is missing"),
        ("other rows", "does not belong to"),
        ("short header", "header has .* it is torn"),
        ("not a header", "is not a shard's header"),
        ("identity", "does not match its checksum"),
        ("both states", "neither of its two states"),
        ("other run", "run is 'other', not 'r'"),
    ],
)
def test_torn_and_foreign_files_are_named_and_not_loaded(tmp_path: Path, damage: str, message: str) -> None:
    one = shard(tmp_path, run="other" if damage == "other run" else "r")
    one.insert("a", 1, push(1, 5))
    one.close(remove=False)
    folder = tmp_path / "shard-0"
    header, rows = folder / "header", folder / "rows"
    content = bytearray(header.read_bytes())
    if damage == "short rows":
        rows.write_bytes(rows.read_bytes()[:-100])
    elif damage == "no rows":
        rows.unlink()
    elif damage == "other rows":
        shard(tmp_path / "b").close(remove=False)
        rows.write_bytes((tmp_path / "b" / "shard-0" / "rows").read_bytes())
    elif damage == "short header":
        header.write_bytes(content[:1000])
    elif damage == "not a header":
        header.write_bytes(b"PNG" + content[3:])
    elif damage == "identity":
        content[60] ^= 1
        header.write_bytes(content)
    elif damage == "both states":
        memory_of = shard(tmp_path / "c").memory
        assert isinstance(memory_of, ShardFiles)
        for slot in (0, 1):
            content[memory_of.slots_at + slot * memory_of.slot_size + 20] ^= 1
        header.write_bytes(content)
    again = shard(tmp_path)
    assert again.origin == "empty" and again.storage.transitions == [0, 0]
    assert re.search(message, again.problem), again.problem


def test_another_capacity_is_another_shard(tmp_path: Path) -> None:
    shard(tmp_path).insert("a", 1, push(1, 5))
    again = shard(tmp_path, storage=spec(2, capacity=300))
    assert again.origin == "empty" and "rows is" in again.problem


def test_files_that_the_run_has_gone_on_without_are_out_of_date(tmp_path: Path) -> None:
    one = shard(tmp_path, take=3)
    one.insert("a", 1, push(1, 5))
    one.close(remove=False)
    for take in (3, 4, 4):  # 3 again, as after a death; then 4, twice: a process may die before 4 is noted
        again = shard(tmp_path, take=take)
        assert again.origin == "files"
        again.close(remove=False)
    stale = shard(tmp_path, take=6)
    assert stale.origin == "empty" and "is out of date" in stale.problem
    stale.close(remove=False)


def test_files_of_a_system_that_went_down_are_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = shard(tmp_path)
    one.insert("a", 1, push(1, 5))
    one.close(remove=False)
    monkeypatch.setattr(memory, "boot_id", lambda: "another")
    again = shard(tmp_path)
    assert again.origin == "empty" and "boot is" in again.problem


def test_the_oldest_writer_is_forgotten_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MOST_WRITERS", 3)
    one = shard(tmp_path)
    for number, name in enumerate("abcad"):
        assert one.insert(name, number, push(1 + 20 * number, 5)).accepted
    one.close(remove=False)
    again = shard(tmp_path)
    assert set(again.memory.sequences) == {"a", "c", "d"}
    assert again.memory.sequences["a"] == 3
    with pytest.raises(ValueError, match="48 bytes"):
        again.insert("x" * 49, 1, push(1, 5))


def test_no_room_is_said_before_anything_is_there(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match=r"no room for .* lower --replay.capacity"):
        files(tmp_path, nbytes=1 << 55)
    assert [path.name for path in (tmp_path / "shard-0").iterdir()] == ["lock"]


def test_where_files_go(tmp_path: Path) -> None:
    named = choose_folder(str(tmp_path / "named"), tmp_path / "run", "r", 1000)
    assert named == tmp_path / "named" / "r"
    assert choose_folder("", tmp_path / "run", "r", 1 << 60) == tmp_path / "run" / "r"
    if Path("/dev/shm").is_dir():
        assert choose_folder("", tmp_path / "run", "r", 1000).is_relative_to("/dev/shm")
        (tmp_path / "run" / "r").mkdir(parents=True)
        assert choose_folder("", tmp_path / "run", "r", 1000) == tmp_path / "run" / "r", "where they are already"


def test_what_is_held_is_what_was_pushed(folder: Path) -> None:
    """A ring holds the newest pushes: more are made than fit, and its files are reopened after every seven pushes."""
    numbers: list[float] = []
    for life in range(12):
        one = shard(folder)
        for k in range(7):
            start = 1 + 20 * (7 * life + k)
            one.insert("a", 7 * life + k, push(start, 5, 5))
            numbers += [*range(start, start + 5), *range(start + 6, start + 11)]
        found = [transition.reward for transition in transitions(held(one.storage.rings[1]))]
        assert found == numbers[-len(found) :] and len(found) >= min(200, len(numbers))
        one.close(remove=False)


@pytest.mark.parametrize(
    ("limit", "available", "total"),
    [("1000000000", 1_000_000_000 - 700_000_000 + 200_000_000, 1_000_000_000), ("max", None, None), ("", None, None)],
)
def test_a_container_may_have_less_memory_than_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, available: int | None, total: int | None
) -> None:
    if limit:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("700000000\n")
        (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 150000000\nactive_file 50000000\n")
    monkeypatch.setattr(locations, "CGROUP", tmp_path)
    found = node_memory()
    machine = psutil.virtual_memory().total
    assert found[1] == (total or machine)
    assert found[0] == available if available else 0 < found[0] <= machine
