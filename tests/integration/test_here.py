"""Tests of the current folder: `brc` finds modules in it, they hide none of our packages, and they may leave it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from brc_at_scale import PACKAGES
from tests.support import beside


def test_every_command_finds_a_module_in_the_current_folder(tmp_path: Path) -> None:
    """The module is found even if its environment leaves the folder."""
    here = beside.prepare(tmp_path / "projekt ä日")
    done = beside.train(here, "Wandering", "fer-1", "--execution=serial", "--steps=400", "--checkpoint-interval=200")
    assert done.returncode == 0, done.stderr + done.stdout
    run = here / "runs" / "fer-1"
    assert {path.name for path in run.iterdir()} >= {"checkpoints", "config.yaml", "report.html", "events.jsonl"}
    assert not (here / "away" / "runs").exists() and len(list((run / "checkpoints").iterdir())) == 2
    for words in (["eval", "fer-1", "--episodes=1"], ["export", "fer-1", "--folder=policy"]):
        done = beside.brc(here, *words, LC_ALL="C")
        assert done.returncode == 0, done.stderr
    assert (here / "policy").is_dir()
    more = ["--execution=serial", "--steps=600", "--resume"]
    done = beside.train(here, "Wandering", "fer-1", *more)
    assert done.returncode == 0, done.stderr + done.stdout
    done = beside.brc(tmp_path, "eval", "fer-1", f"--runs-folder={here}/runs")
    assert done.returncode == 2 and "no module wandering_envs: install it, or call brc in its folder" in done.stderr


def test_rays_processes_find_it_too(folder: Path) -> None:
    """Paths are not ASCII here, the environment leaves the folder, and TMPDIR is too long for Ray's sockets."""
    here = beside.prepare(folder / "projekt ä日")
    long = here / "scratch/users/a-rather-long-name/jobs/slurm-1234567/tmp"
    long.mkdir(parents=True)
    variables = {"LC_ALL": "C", "TMPDIR": str(long)}
    done = beside.train(here, "Wandering", "d", "--steps=400", "--replay.directory=reé", **variables)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Ray has its sessions in /tmp/brc-ray-" in done.stdout
    assert not list((here / "reé").glob("*")) and not (here / "away" / "runs").exists()


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("kind", ["{}.py", "{}/__init__.py"])
def test_what_hides_a_package_of_ours_is_named(tmp_path: Path, name: str, kind: str) -> None:
    file = tmp_path / kind.format(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise SystemExit('it was imported')\n")
    done = beside.brc(beside.ROOT, "presets", PYTHONPATH=f"{tmp_path}:{beside.ROOT}")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"brc: {file} is found where its own package {name} should be: rename it")
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_of_records_hides_nothing(tmp_path: Path) -> None:
    """A folder with a package's name but without modules, such as a folder of replays, hides nothing."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
    done = beside.brc(tmp_path, "presets", PYTHONPATH=f"{tmp_path}:{beside.ROOT}")
    assert done.returncode == 0 and "quickstart" in done.stdout, done.stderr


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    script = f"import os, sys; os.chdir({str(tmp_path)!r}); os.rmdir({str(tmp_path)!r}); from brc_at_scale import main"
    command = [sys.executable, "-P", "-c", script + "; sys.exit(main())", "presets"]
    done = subprocess.run(command, env=beside.environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "brc: the current folder is gone: call brc from another\n")


@pytest.mark.parametrize("words", [["status", "--runs-folder=ä"], ["train", "quickstart", "--tasks=gymnasium/ä:X-v0"]])
def test_words_that_cannot_be_written_down_are_refused(tmp_path: Path, words: list[str]) -> None:
    done = beside.brc(tmp_path, *words, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 2 and "is not UTF-8: use another name, or set PYTHONUTF8=1 if it is" in done.stderr
