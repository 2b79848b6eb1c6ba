"""Every wrong input is refused in one sentence, within two seconds, with exit code 2, before Ray or torch is loaded."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.cli import main as cli
from cluster.config.fields import BOUNDS
from cluster.preflight.validation import validate
from cluster.run.folder import open_run
from cluster.run.registry import find_registry
from tests.support import tiny

# (the words typed after `brc`, parts that the error message must contain)
TABLE: list[tuple[str, list[str]]] = [
    ("trian quickstart", ["unknown command 'trian'", "train"]),
    ("train", ["needs a preset", "quickstart", "dmc-dogs"]),
    ("train quickstrat", ["unknown preset 'quickstrat'", "quickstart"]),
    ("train quickstart --tasks dmc-dog", ["'dmc-dog'", "dmc-dogs"]),
    ("train quickstart --tasks dmc/walker-wlak", ["'dmc/walker-wlak'", "dmc/walker-walk"]),
    ("train quickstart --tasks", ["--tasks"]),
    ("train quickstart --learner.widht 64", ["unknown option", "--learner.widht", "--learner.width"]),
    ("train quickstart --learner.width wide", ["--learner.width", "'wide' is not a whole number"]),
    ("train quickstart --learner.discount high", ["--learner.discount", "'high' is not a number"]),
    ("train quickstart --steps 1e6", ["--steps", "'1e6' is not a whole number"]),
    ("train quickstart --execution parallel", ["--execution", "'parallel'", "'serial'"]),
    ("train quickstart --learner.width 4", ["--learner.width 4 is out of range", "from 8"]),
    ("train quickstart --learner.discount 1", ["--learner.discount 1.0 is out of range", "0.999999"]),
    ("train quickstart --learner.learning-rate nan", ["--learner.learning-rate nan is out of range"]),
    ("train quickstart --seed -1", ["--seed -1 is out of range", "from 0"]),
    ("train quickstart --name ../elsewhere", ["--name '../elsewhere'", "letters"]),
    ("train quickstart --steps 500 --replay.warmup 500", ["--steps 500", "--replay.warmup 500"]),
    ("train quickstart --steps 2001 --replay.shards 2", ["--steps 2001", "--replay.shards 2", "at least 2002"]),
    (
        "train quickstart --tasks dmc/dog-run gymnasium/CartPole-v1",
        ["--tasks gymnasium/CartPole-v1 has discrete actions and dmc/dog-run has none"],
    ),
    (
        "train quickstart --tasks atari/pong gymnasium/CartPole-v1",
        ["--tasks atari/pong has images and gymnasium/CartPole-v1 has none"],
    ),
    ("train quickstart --tasks atari/pong --execution serial", ["--atari.sticky 0.25", "use 0"]),
    ("train quickstart --tasks gymnasium", ["unknown task or suite 'gymnasium'"]),
    ("train quickstart --learner.network bronette", ["--learner.network bronette", "there are bronet"]),
    ("train quickstart --learner.agent sac", ["--learner.agent sac", "there are auto, brc, discrete-brc"]),
    ("train quickstart --learner.agent discrete-brc", ["--learner.agent discrete-brc", "continuous: use auto"]),
    ("train quickstart --tasks atari/pong --learner.sharding shard", ["--learner.sharding shard", "use replicate"]),
    (
        "train quickstart --learner.ranks 8 --learner.sharding tensor --learner.width 62",
        ["--learner.width 62", "4 ranks cannot divide", "use 64"],
    ),
    (
        "train quickstart --learner.ranks 4 --learner.replicas 2 --learner.sharding tensor --learner.batch-size 33",
        ["--learner.batch-size 33", "use 1"],
    ),
    ("train quickstart --learner.ranks 2 --learner.replicas 2 --learner.sharding replicate", ["tensor or shard"]),
    ("train quickstart --actors.runtime dmc nowhere.yaml", ["--actors.runtime dmc ", "nowhere.yaml", "cannot be read"]),
    ("train quickstart --actors.runtime dmc /dev/null", ["--actors.runtime dmc /dev/null", "NoneType"]),
    ("train quickstart --actors.runtime atari cluster.yaml", ["--actors.runtime", "no 'atari'"]),
    ("film nothing", ["there is no run 'nothing'"]),
    ("train quickstart --tasks atari/pong --atari.stack 0", ["--atari.stack 0", "1 to 16"]),
    ("train quickstart --learner.target-entropy-per-action 0.5", ["--learner.target-entropy-per-action 0.5"]),
    ("train quickstart --replay.warmup 2 --replay.shards 3", ["--replay.warmup 2", "at least 3"]),
    (
        "train quickstart --learner.updates-per-step 0.01 --replay.max-ahead 50",
        ["--replay.max-ahead 50", "--learner.updates-per-step 0.01", "at least 100"],
    ),
    ("train quickstart --learner.updates-per-step 1e-6", ["--learner.updates-per-step 1e-06"]),
    ("train quickstart --replay.capacity 40", ["--replay.capacity 40", "use at least"]),
    ("train quickstart --replay.snapshots nowhere://x", ["--replay.snapshots 'nowhere://x'", "nowhere"]),
    ("train quickstart --replay.snapshots /dev/null/x", ["--replay.snapshots", "/dev/null"]),
    ("train quickstart --replay.directory /dev/null/x", ["--replay.directory", "/dev/null"]),
    ("train quickstart --replay.task-weights dmc/reacher-esay 2", ["'dmc/reacher-esay'", "dmc/reacher-easy"]),
    ("train quickstart --replay.task-weights dmc/reacher-easy 0", ["--replay.task-weights dmc/reacher-easy 0"]),
    ("train quickstart --learner.precision tf32 --learner.device cpu", ["--learner.precision tf32", "bf16"]),
    ("train quickstart --learner.n-step 0", ["--learner.n-step 0", "from 1 to 1000"]),
    ("train quickstart --replay.capacity 100000000000", ["--replay.capacity", "bytes of memory are available"]),
    ("train quickstart --learner.width 65536", ["--learner.width 65536 needs", "critic moments", "use at most"]),
    ("train quickstart --learner.ranks 3", ["--learner.ranks 3", "--learner.batch-size 256", "use 2"]),
    ("train quickstart --learner.ranks 2 --execution serial", ["--learner.ranks 2", "use 1"]),
    ("train quickstart --learner.ranks 4 --learner.replicas 3", ["--learner.replicas 3", "--learner.ranks 4"]),
    ("train quickstart --learner.deadline 0", ["--learner.deadline 0.0 is out of range", "from 5"]),
    ("train quickstart --learner.checkpoints nowhere://x", ["--learner.checkpoints 'nowhere://x'", "nowhere"]),
    (
        "train quickstart --execution serial --replay.directory . --replay.capacity 1000000000",
        ["--replay.capacity", "bytes of memory are available"],
    ),
    (
        "train quickstart --actors.copies 4096 --actors.count 1000 --replay.capacity 600000",
        ["--actors.count 1000", "4096 copies", "use at most 64"],
    ),
    ("train quickstart --actors.of dcm.count 3", ["--actors.of dcm.count", "dmc"]),
    ("train quickstart --actors.of dmc.cores 3", ["--actors.of dmc.cores", "cpus"]),
    ("train quickstart --actors.of dmc.count 1.5", ["--actors.of dmc.count 1.5", "a whole number from 0 to 4096"]),
    (
        "train quickstart --execution serial --actors.of dmc.count 2",
        ["--actors.of dmc.count", "only action-repeat"],
    ),
    ("train atari-26 --actors.action-repeat 2", ["--actors.action-repeat", "--atari.frame-skip"]),
    ("train quickstart --actors.of dmc.action-repeat 1.5", ["dmc.action-repeat 1.5", "a whole number from 1 to 100"]),
    ("train quickstart --actors.gpus 0.5", ["--actors.gpus", "0.5 GPUs together"]),
    ("train quickstart --actors.privileged-keys seed", ["--actors.privileged-keys seed", "none of them observes"]),
    (
        "train quickstart --tasks gymnasium/tests.support.counting:Counting-v0 --actors.privileged-keys sead",
        ["--actors.privileged-keys sead", "did you mean seed"],
    ),
    (
        "train quickstart --tasks gymnasium/tests.support.counting:Counting-v0 --actors.privileged-keys seed steps",
        ["--actors.privileged-keys seed steps", "observes nothing else"],
    ),
    ("train quickstart --actors.of dmc.copies 0", ["--actors.of dmc.copies 0", "from 1"]),
    (
        "train quickstart --tasks gymnasium/tests.support.counting:Several-v0",
        ["MultiDiscrete", "only Box and Discrete"],
    ),
    (
        "train quickstart --tasks gymnasium/tests.support.odd_envs_actions:Countless-v0",
        ["of its actions", "at most 10,000"],
    ),
    (
        "train quickstart --tasks gymnasium/tests.support.odd_envs_actions:Keyless-v0",
        ["keys ['', 'there']", "a word for"],
    ),
    (
        "train quickstart --tasks gymnasium/tests.support.odd_envs_actions:Numbered-v0",
        ["keys [0, 1]", "a word for its key"],
    ),
    ("train quickstart --tasks metaworld/reech", ["metaworld/reach"]),
    ("scale nothing dmc=3", ["there is no run 'nothing'"]),
    ("scale", ["name a run"]),
    ("train quickstart --resume", ["--resume needs --name"]),
    ("train quickstart --resume --name nothing", ["there is no run 'nothing'"]),
    ("train quickstart --runs-folder /proc/none", ["--runs-folder /proc/none", "cannot write there"]),
    ("eval", ["name a run"]),
    ("eval nothing", ["there is no run 'nothing'"]),
    ("eval nothing --episodes few", ["--episodes", "'few' is not a whole number"]),
    ("export nothing", ["there is no run 'nothing'"]),
    ("stop nothing", ["there is no run 'nothing'"]),
    ("status nothing", ["there is no run 'nothing'"]),
    ("suites dmc-cats", ["unknown suite 'dmc-cats'", "dmc-"]),
]


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Return the refusal of `brc`: one sentence on stderr, and nothing on stdout."""
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("brc: ") and captured.err.count("\n") == 1, captured.err
    return captured.err


@pytest.mark.parametrize(("typed", "expected"), TABLE, ids=[typed for typed, _ in TABLE])
def test_bad_input_is_one_sentence(
    typed: str, expected: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, typed.split())
    for part in expected:
        assert part in said
    assert not list(tmp_path.glob("runs/*")), "a refused run leaves nothing behind"


def test_a_refusal_loads_neither_ray_nor_torch_and_takes_less_than_two_seconds(tmp_path: Path) -> None:
    """The check of memory comes last, so its refusal is the slowest refusal."""
    script = (
        "import sys; from cluster.cli.main import main; code = main(sys.argv[1:])\n"
        "assert not {'ray', 'torch', 'envpool', 'dm_control'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    typed = "train dmc-all --replay.capacity 100000000000"
    best = float("inf")
    for _ in range(3):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", script, *typed.split()], capture_output=True, text=True, cwd=tmp_path, timeout=60
        )
        best = min(best, time.monotonic() - started)
        assert done.returncode == 2, done.stderr
    assert best < 2


def test_every_number_of_the_configuration_has_bounds() -> None:
    """A field without bounds would accept wrong settings."""
    config = tiny.config()
    parts = {name: part for name, part in vars(config).items() if dataclasses.is_dataclass(part)}
    groups = {"": config} | {f"{name}.": part for name, part in parts.items()}
    fields = {group + name for group, part in groups.items() for name, value in vars(part).items() if is_number(value)}
    assert fields == set(BOUNDS)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def test_a_missing_package_comes_with_its_install_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = refused(capsys, ["train", "quickstart"])
    assert "needs the package envpool" in said and "pip install" in said


@pytest.fixture
def finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A short serial run named `done`, below runs/ of the working folder."""
    monkeypatch.chdir(tmp_path)
    assert (
        cli.main(["train", "quickstart", *tiny.OPTIONS, *["--execution", "serial", "--steps", "400", "--name", "done"]])
        == 0
    )
    capsys.readouterr()
    return tmp_path / "runs" / "done"


RESUME = ["train", "quickstart", *tiny.OPTIONS, "--execution=serial", "--name=done", "--steps=800", "--resume"]
# (changed options of a resume of that run, parts that the error message must contain)
RESUMES: list[tuple[str, list[str]]] = [
    ("--tasks dmc/cheetah-run", ["--tasks", "dmc/cartpole-swingup", "dmc/cheetah-run"]),
    ("--learner.width 32", ["--learner.width", "16", "32"]),
    ("--learner.policy-width 32", ["--learner.policy-width", "16", "32"]),
    ("--learner.num-bins 51", ["--learner.num-bins", "101", "51"]),
    ("--replay.capacity 30000", ["--replay.capacity", "20000", "30000"]),
    ("--learner.updates-per-step 1", ["--learner.updates-per-step", "0.25", "1.0"]),
    ("--replay.warmup 350", ["--replay.warmup", "300", "350"]),
    ("--learner.discount 0.95", ["--learner.discount", "0.99", "0.95"]),
    ("--seed 3", ["--seed", "0, not 3", "--execution distributed"]),
    ("--actors.copies 3", ["--actors.copies", "2, not 3"]),
    ("--actors.backend dm_control", ["--actors.backend", "envpool", "dm_control"]),
    ("--steps 400", ["--steps 400", "has done 400 already"]),
]


def test_a_resume_that_differs_names_the_field_and_both_values(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(finished_run)
    for changed, expected in RESUMES:
        said = refused(capsys, [*RESUME, *changed.split()])
        for part in expected:
            assert part in said, (changed, said)
    assert "`brc resume done`" in refused(capsys, [option for option in RESUME if option != "--resume"])
    assert contents(finished_run) == before


def test_a_damaged_file_is_named_and_left_alone(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = next((finished_run / "checkpoints").iterdir())
    damages: list[tuple[Path, Callable[[bytes], bytes]]] = [
        (checkpoint / "__0_0.distcp", lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:]),
        (checkpoint / "serial.pt", lambda data: data[:-1]),
        (checkpoint / "manifest.json", lambda data: data[: len(data) // 2]),
        (checkpoint / "manifest.json", lambda data: json.dumps({"format": "another"}).encode()),
        (finished_run / "config.yaml", lambda data: b"learner: [unclosed"),
        (finished_run / "config.yaml", lambda data: data.replace(b"width: 16", b"width: wide")),
    ]
    for file, damage in damages:
        good = file.read_bytes()
        file.write_bytes(damage(good))
        before = contents(finished_run)
        for arguments in (RESUME, ["eval", "done"]):
            assert str(file.relative_to(finished_run)) in refused(capsys, arguments)
        assert contents(finished_run) == before
        file.write_bytes(good)
    # A policy can be evaluated without its replay, but its training cannot go on.
    for file in (next((finished_run / "replay" / "packs").iterdir()), next((finished_run / "replay").rglob("*.json"))):
        good = file.read_bytes()
        file.write_bytes(good[:-30] + bytes([good[-30] ^ 1]) + good[-29:])
        said = refused(capsys, RESUME)
        assert str(file.relative_to(finished_run)) in said and "would go on with an empty replay" in said
        file.unlink()
        assert "is missing" in refused(capsys, RESUME)
        assert cli.main(["eval", "done", "--episodes", "1"]) == 0
        capsys.readouterr()
        assert "brc: --episodes 0 is out of range" in refused(capsys, ["eval", "done", "--episodes", "0"])
        file.write_bytes(good)


def test_a_name_in_use_by_a_live_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_run(validate(tiny.config(name="live")), "quickstart"):
        for resume in ([], ["--resume"]):
            said = refused(capsys, ["train", "quickstart", *tiny.OPTIONS, "--name=live", *resume])
            assert "live" in said and "brc stop live" in said


def test_a_stop_reaches_a_run_through_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop is a note in the folder of runs, so it also works from another machine that shares the folder."""
    monkeypatch.chdir(tmp_path)
    with open_run(validate(tiny.config(name="there")), "quickstart") as run:
        assert not run.presence.stop.wait(1.5)
        find_registry(Path("runs")).write("there", wish="stop")
        assert run.presence.stop.wait(30)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a run except its lock, which a refused resume takes and releases."""
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name != "lock"}
