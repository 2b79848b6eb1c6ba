"""Tests of the wheel: it holds all that a run needs, and trains when it is installed far from the source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("learner", "actors", "replay", "cluster", "dashboards")
NOT_READ = {"dashboards/prometheus/tests.yml", "learner/networks/norm.c", "replay/store/gather.c"}  # by Python


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the packages, so that nothing is left in the source."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "brc_at_scale.py"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(source)], check=True, timeout=240)
    (found,) = folder.glob("*.whl")
    return found


def test_it_has_every_file_that_is_read_at_run_time(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    files = [file for name in PACKAGES for file in (ROOT / name).rglob("*") if file.is_file()]
    wanted = {str(file.relative_to(ROOT)) for file in files if file.suffix not in (".pyc", ".so")}
    assert wanted - NOT_READ <= held, sorted(wanted - NOT_READ - held)


def test_installed_elsewhere_it_trains(wheel: Path, tmp_path: Path) -> None:
    """The wheel alone provides the project. Its dependencies are those of these tests."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=120)
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    environment["PYTHONPATH"] = sysconfig.get_path("purelib")  # its .pth files, which add the source, are not read
    brc = [str(tmp_path / "env" / "bin" / "brc"), "train", "quickstart", "--name=elsewhere", "--execution=serial"]
    small = ["--tasks=dmc/cartpole-swingup", "--steps=900", "--replay.warmup=500", "--evaluation.episodes=1"]
    done = subprocess.run([*brc, *small], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "elsewhere" / "report.html").is_file()
    where = "import learner, cluster; print(learner.__file__, cluster.__file__)"
    found = subprocess.run(
        [str(python), "-c", where],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert all(Path(file).is_relative_to(tmp_path / "env") for file in found.stdout.split())
