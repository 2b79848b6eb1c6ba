"""Tests of `make gpu-proof`: all stages with small sizes on a CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_proof
from benchmarks.gpu_proof import Settings

SMALL = Settings(
    device="cpu",
    widths=(16, 32),
    batches=(32,),
    seconds=0.05,
    repeats=1,
    minutes=4.0,
    train="--execution=serial --steps=40 --replay.warmup=20 --evaluation.interval=0 --evaluation.episodes=1 "
    "--learner.batch-size=16 --learner.policy-width=16 --learner.updates-per-step=0.1",
)


def test_every_stage_runs_on_a_cpu(tmp_path: Path) -> None:
    stages: tuple[gpu_proof.Stage, ...] = ("ceilings", "updates", "kernels", "reference", "training")
    assert gpu_proof.main(stages, tmp_path, SMALL) == 0
    rows = gpu_proof.read(tmp_path)
    assert [row["stage"] for row in rows if "took_s" in row] == list(stages)
    assert {row["widths"] for row in rows if row["stage"] == "updates" and "case" in row} == {16, 32}
    (trained,) = (row for row in rows if row.get("case") == gpu_proof.RUN)
    assert len(trained["return"]) == 4 and (tmp_path / gpu_proof.FIGURE).stat().st_size > 1000
    page = (tmp_path / gpu_proof.PAGE).read_text()
    assert "| copy |" in page and "FAILED" not in page and "dmc-dogs after 40 steps" in page


def test_a_row_that_fails_ends_neither_its_stage_nor_the_others(tmp_path: Path) -> None:
    """The reference is no checkout."""
    broken = Settings(device="cpu", widths=(8,), batches=(8,), seconds=0.01, repeats=1, reference=tmp_path)
    assert gpu_proof.main(("reference", "ceilings"), tmp_path / "out", broken) == 1
    rows = gpu_proof.read(tmp_path / "out")
    failed = [row for row in rows if "failed" in row]
    assert len(failed) == 2 and all("is not a checkout" in row["failed"] for row in failed)
    assert any(row.get("case") == "copy" for row in rows)
    assert "FAILED" in (tmp_path / "out" / gpu_proof.PAGE).read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_proof.main(("ceilings",), tmp_path) == 2
    assert "no GPU" in capsys.readouterr().err


def test_measuring_needs_few_packages() -> None:
    """A machine that is lent for minutes may have no index of packages."""
    script = "import sys, benchmarks.gpu_proof; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "tyro" in loaded and not {"ray", "envpool", "matplotlib", "gymnasium", "yaml"} & set(loaded)
