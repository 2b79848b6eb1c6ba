"""Published runs: what is in them, what is not, and what others can do with them."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import fsspec
import pytest
import yaml
from fsspec.implementations.memory import MemoryFileSystem

from cluster.cli import main as cli
from cluster.run.folder import load_config
from tests.support import tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs with the serial run `mine`, whose checkpoints are elsewhere."""
    folder = tmp_path_factory.mktemp("own")
    options = ["--execution=serial", "--steps=400", f"--learner.checkpoints={folder}/kept"]
    done = tiny.train(folder, "mine", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs"


def brc(*words: str) -> int:
    return cli.main(list(words))


def test_a_published_run_says_what_it_is_and_acts(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "published"
    assert brc("push", "mine", str(place), "--runs-folder", str(runs)) == 0
    files = {file.relative_to(place).as_posix() for file in place.rglob("*") if file.is_file()}
    assert {"README.md", "config.yaml", "eval.jsonl", "curves.png", "policy/policy.onnx", "policy/example.py"} <= files
    assert any(file.startswith("checkpoints/") and file.endswith("manifest.json") for file in files)
    for file in place.rglob("*"):
        assert not file.is_file() or str(runs.parent).encode() not in file.read_bytes(), (
            f"{file} names a folder of ours"
        )
    head, text = (place / "README.md").read_text().split("---\n", 2)[1:]
    about = yaml.safe_load(head)
    (result,) = about["model-index"][0]["results"]
    assert "dmc" in about["tags"] and result["dataset"]["name"] == "dmc/cartpole-swingup"
    assert f"brc pull {place} mine --checkpoint" in text
    assert "| `dmc/cartpole-swingup` |" in text and "--learner.width 16" in text
    acted = subprocess.run([sys.executable, "example.py"], cwd=place / "policy", capture_output=True, text=True)
    assert acted.returncode == 0 and "dmc/cartpole-swingup" in acted.stdout, acted.stderr

    # Without its checkpoint nothing of it runs code of others; with it, training goes on from it.
    theirs = ("--runs-folder", str(tmp_path / "runs"))
    assert brc("pull", str(place), "safe", *theirs) == 0 and not (tmp_path / "runs/safe/checkpoints").exists()
    assert load_config(tmp_path / "runs/safe")[1].learner.width == 16
    assert brc("pull", str(place), "whole", "--checkpoint", *theirs) == 0
    assert brc("eval", "whole", "--episodes", "1", *theirs) == 0
    options = ["--steps=400", "--learner.device=cpu", "--evaluation.films=0"]
    assert brc("add-task", "whole", "dmc/cartpole-balance", "--name=more", *options, *theirs) == 0
    capsys.readouterr()
    for words, said in (
        (["pull", str(place), "whole"], "is there already"),
        (["pull", str(tmp_path), "other"], "has no config.yaml"),
        (["eval", "safe"], "has no checkpoint"),
        (["push", "mine"], "needs a URL"),
    ):
        folder = ("--runs-folder", str(runs)) if words[0] == "push" else theirs
        assert brc(*words, *folder) == 2
        assert said in capsys.readouterr().err, words


def test_hugging_face_gets_a_repository_with_the_same_files(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file system in memory stands for that of huggingface_hub, which has the same interface."""
    made: list[str] = []

    class Hub(MemoryFileSystem):  # type: ignore[misc]
        protocol = ("hf",)
        store: dict[str, object] = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012

    hub = ModuleType("huggingface_hub")
    hub.__spec__ = ModuleSpec("huggingface_hub", None)
    hub.HfApi = lambda: SimpleNamespace(create_repo=lambda name, exist_ok: made.append(name))  # type: ignore[attr-defined]
    fsspec.register_implementation("hf", Hub, clobber=True)
    own = ("--runs-folder", str(runs))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert brc("push", "mine", "hf://team/cartpole", *own) == 2
    assert "needs the package huggingface_hub" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert brc("push", "mine", "hf://team/cartpole", "--no-checkpoint", *own) == 0
    assert made == ["team/cartpole"] and not any("checkpoints" in name for name in Hub.store)
    assert any(name.endswith("team/cartpole/README.md") for name in Hub.store), list(Hub.store)
    assert brc("pull", "hf://team/cartpole", "theirs", "--runs-folder", str(tmp_path)) == 0
    ours, card = (runs / "mine/eval.jsonl").read_bytes(), (tmp_path / "theirs/README.md").read_text()
    assert (tmp_path / "theirs/eval.jsonl").read_bytes() == ours and "onnxruntime" in card and "brc pull" not in card
