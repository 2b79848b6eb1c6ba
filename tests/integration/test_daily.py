"""A week of daily use: configurations in files, resumes, seeds, and what to do with runs that are there."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cli import main as cli
from cluster.cli.train import asked, configuration, shipped_words
from cluster.config import changes, files
from cluster.config.presets import PRESETS
from cluster.run.folder import load_config
from cluster.run.registry import FileRegistry
from tests.support import tiny
from tests.support.live import wait_for

FILE = """
about: cartpole, tiny
preset: quickstart
tasks: [dmc/cartpole-swingup]
steps: 400
execution: serial
learner: {width: 16, policy-width: 16, batch_size: 32, updates-per-step: 0.25, threads: 1, precision: float32}
actors.count: 1
replay:
  capacity: 20_000
  warmup: 300
evaluation: {episodes: 1, interval: 0}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the configuration `small.yaml` and the preset `tiny`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(FILE)
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "tiny.yaml").write_text(FILE)
    return tmp_path


def brc(*words: str) -> int:
    return cli.main(list(words))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert brc(*words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def test_a_week_of_daily_use(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert brc("train", "--config", "small.yaml", "--name", "a") == 0
    said = capsys.readouterr().out
    # It is stopped early by its budget; the options of the run need not be typed again.
    assert brc("resume", "a", "--steps", "600") == 0
    said = capsys.readouterr().out
    assert "resumed at 400 steps" in said
    assert load_config(here / "runs/a")[1].steps == 600 and not load_config(here / "runs/a")[1].resume
    assert tiny.manifest(here, "a")["env_steps"] == 600

    # A run's own config.yaml makes another run like it.
    assert brc("train", "--config", "runs/a/config.yaml", "--name", "b", "--steps", "400", "--seed", "1") == 0
    capsys.readouterr()
    assert brc("compare", "a", "b") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [["steps", "600", "400"], ["seed", "0", "1"]]
    assert brc("compare", "a", "a") == 0 and "the same options" in capsys.readouterr().out

    # A copy has all of the run and goes on by itself, with the same results.
    assert brc("copy", "a", "c") == 0
    assert brc("resume", "c", "--steps", "800") == 0 and brc("resume", "a", "--steps", "800") == 0
    assert tiny.rows(here, "a", "eval")[-1]["returns"] == tiny.rows(here, "c", "eval")[-1]["returns"]
    assert (here / "runs/a/id").read_text() != (here / "runs/c/id").read_text()
    assert "is there already" in refused(capsys, "copy", "a", "c")

    # What was learned goes on with other tasks, and the origin is not needed for a resume.
    assert brc("add-task", "b", "dmc/cartpole-balance", "--name", "more", "--steps", "400") == 0
    assert brc("delete", "b") == 0
    assert not (here / "runs/b").exists() and FileRegistry(here / "runs").names() == ["a", "c", "more"]
    assert brc("resume", "more", "--steps", "500") == 0
    assert "no run 'b'" in refused(capsys, "delete", "a", "b")
    assert (here / "runs/a").exists(), "all or none"


def test_a_stopped_run_says_the_whole_command_that_goes_on_with_it(here: Path) -> None:
    words = ["train", "tiny", "--name=s", "--steps=1000000", f"--runs-folder={here}/runs/elsewhere"]
    process = subprocess.Popen(tiny.command(words), stdout=subprocess.PIPE, text=True, env=tiny.environment())
    try:
        wait_for(process, lambda: any(row["updates"] for row in tiny.rows(here, "elsewhere/s", "metrics")))
        process.terminate()
        said = process.communicate(timeout=120)[0]
    finally:
        process.kill()
    command = re.search(r"go on with: brc (.*)", said)
    assert command is not None, said
    assert command[1] == f"resume s --runs-folder {here}/runs/elsewhere"
    steps = tiny.manifest(here, "elsewhere/s")["env_steps"]
    assert brc(*shlex.split(command[1]), "--steps", str(steps + 40)) == 0


def test_seeds_are_runs_with_one_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("train", "tiny", "--seeds", "0", "1", "--at-once", "2", "--name", "two")
    assert brc(*words) == 0
    said = capsys.readouterr().out
    assert "2 runs, 0 done" in said and (here / "runs/studies/two/report.html").exists()
    assert [load_config(here / f"runs/two-{seed}")[1].seed for seed in (0, 1)] == [0, 1]
    assert brc(*words, "2") == 2  # a word too many
    assert brc("train", "tiny", "--seeds", "0", "1", "2", "--name", "two") == 0
    assert "3 runs, 2 done" in capsys.readouterr().out
    assert "each seed once" in refused(capsys, "train", "tiny", "--seeds", "1", "1")


def test_what_is_printed_is_what_is_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert brc("train", "dmc-dogs", "--seed", "7", "--print-config") == 0
    (here / "dogs.yaml").write_text(capsys.readouterr().out)
    assert brc("train", "--config", "dogs.yaml", "--print-config") == 0
    assert capsys.readouterr().out == (here / "dogs.yaml").read_text()
    assert files.load(here / "dogs.yaml") == ("dmc-dogs", replace(PRESETS["dmc-dogs"](), seed=7))
    assert brc("train", "tiny", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "1 tasks, 400 steps each" in said and "width 16" in said and not (here / "runs").exists()
    assert brc("presets") == 0
    assert "tiny             cartpole, tiny" in capsys.readouterr().out


OPTIONS = {
    "steps": st.integers(1, 10**6),
    "learner.width": st.integers(8, 512),
    "learner.learning_rate": st.sampled_from([1e-5, 3e-4, 0.5]),
    "learner.order": st.sampled_from(["critic-first", "policy-first"]),
    "replay.task_weights": st.dictionaries(st.sampled_from(["dmc/dog-run", "dmc/dog-trot"]), st.floats(0.1, 9)),
    "evaluation.episodes": st.integers(1, 9),
    "metrics.serve": st.booleans(),
    "tasks": st.lists(st.sampled_from(["dmc-dogs", "dmc/cheetah-run"]), min_size=1, max_size=2).map(tuple),
}


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=OPTIONS), st.booleans(), st.booleans())
def test_a_file_says_the_same_as_a_command_line(
    tmp_path_factory: pytest.TempPathFactory, chosen: dict[str, Any], dots: bool, dashes: bool
) -> None:
    """In sections or with dots, with - or _; and the words for another machine say it too."""
    written: dict[str, Any] = {"preset": "quickstart"}
    for path, value in chosen.items():
        *sections, last = (path.replace("_", "-") if dashes else path).split(".")
        plain = list(value) if isinstance(value, tuple) else value
        if dots or not sections:
            written[".".join([*sections, last])] = plain
        else:
            written.setdefault(sections[0], {})[last] = plain
    file = tmp_path_factory.mktemp("f") / "one.yaml"
    file.write_text(yaml.safe_dump(written))
    expected = changes.changed(PRESETS["quickstart"](), (chosen,), "")
    assert files.load(file) == ("quickstart", expected)
    words = shipped_words(["--config", str(file), "--name", "n", "--seed", "3"])
    assert words[0] == "quickstart"
    assert configuration(asked(words)[1]) == replace(expected, name="n", seed=3)


# (content of a file, what is said of it)
WRONG = [
    ("steps: 10\nlearner:\n  widht: 5", "line 3: there is no option 'learner.widht'; did you mean learner.width"),
    ("preset: quickstart\n\nlearner:\n  width: five", "line 4: learner.width 'five'"),
    ("learner.width: 0", "line 1: learner.width 0 is out of range: it must be from 8"),
    ("learner: 5", "line 1: learner is a section: give it options"),
    ("steps: [10\nseed: 1", "line 2 is not YAML"),
    ("preset: quickstat", "line 1: there is no preset 'quickstat'; did you mean quickstart"),
    ("steps: 1\nsteps: 2", "line 2: steps is in line 1 already"),
    ("learner: {width: 8}\nlearner.width: 9", "line 2: learner.width is in line 1 already"),
    ("- steps", "maps no names to values"),
    ("", "maps no names to values"),
    ("preset: loop", "the preset begins with itself"),
    ("tasks: dmc-dogs", "line 1: tasks 'dmc-dogs'"),
    ("preset: [a]", "line 1: there is no preset ['a']"),
    ("steps: 2020-13-45", "line 1: a value cannot be read (month must be in 1..12)"),
    ("steps: true", "line 1: steps True: it takes no yes or no"),
    ("learner: &x {width: 16, a: *x}", "is nested too deeply, or contains itself"),
    ("steps: 1" + 400 * "0", "line 1: steps 1000"),
]


@pytest.mark.parametrize(("content", "said"), WRONG)
def test_what_is_wrong_in_a_file_is_named_with_its_line(
    here: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    (here / "presets/loop.yaml").write_text(content)
    found = refused(capsys, "train", "--config", "presets/loop.yaml", "--dry-run")
    assert "presets/loop.yaml" in found and said in found
    if "quickstat" not in content:
        assert said in refused(capsys, "train", "loop")


def test_no_run_is_lost_by_a_wrong_word(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, folder in (("a", "runs"), ("b", "runs"), ("a", "other")):
        assert brc("train", "tiny", "--name", name, "--runs-folder", folder) == 0
    kept = contents(here)
    assert "is a path" in refused(capsys, "delete", "../other/a")
    assert "is a path" in refused(capsys, "copy", "../other/a", "c")
    assert "brc resume goes on with run a" in refused(capsys, "resume", "a", "--steps", "500", "--name", "b")
    (here / "runs/b/config.yaml").rename(here / "kept.yaml")
    (here / "runs/b/config.yaml").write_text("learner: [unclosed")
    assert "is not a configuration of a run" in refused(capsys, "delete", "a", "b")
    (here / "kept.yaml").rename(here / "runs/b/config.yaml")
    (here / "runs/link").symlink_to(here / "other/a")
    assert "is a link" in refused(capsys, "delete", "link")
    (here / "runs/link").unlink()
    lease = FileRegistry(here / "runs").lease("a")
    assert "is live" in refused(capsys, "delete", "b", "a")
    lease.release()
    assert contents(here) == kept
    assert brc("delete", "a", "a") == 0 and not (here / "runs/a").exists()


def contents(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "lock"]
    return {str(file): file.read_bytes() for file in files}


# (words behind `brc train`, what is said of them)
TOGETHER = [
    ("tiny --at-once 3", "--at-once 3 is for several runs"),
    ("tiny --seeds 0 1 --resume", "leave out --resume"),
    ("--config=", "--config needs a file"),
    ("tiny --learner.width 0 --print-config", "--learner.width 0 is out of range"),
]


@pytest.mark.parametrize(("words", "said"), TOGETHER)
def test_options_that_do_not_go_together(here: Path, capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    assert said in refused(capsys, "train", *words.split())


def test_files_and_presets_that_cannot_be(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "none.yaml cannot be read" in refused(capsys, "train", "--config", "none.yaml")
    assert "leave one of them out" in refused(capsys, "train", "mtsac", "--config", "small.yaml")
    (here / "presets/sac.yaml").write_text(FILE)
    assert "has the name of a preset that is there already" in refused(capsys, "train", "sac")
    assert brc("train", "tiny", "--dry-run") == 0, "others are not concerned"
    (here / "bad.yaml").write_bytes(b"\xff\xfe")
    (here / "presets/sac.yaml").unlink()
    assert "not text in UTF-8" in refused(capsys, "train", "--config", "bad.yaml")
