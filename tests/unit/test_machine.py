"""Hidden GPUs are never counted, and a learner without a GPU is checked against the memory of the machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError, RunFailed
from cluster.preflight import machine
from cluster.preflight.device import learner_device
from cluster.preflight.machine import this_machine, visible
from cluster.preflight.validation import validate
from tests.support import tiny

NAMES = ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-11111111-d72c-4106-c12f-20bd9faed9f6"]
HIDDEN = ["", " ", "-1", "7", "NoDevFiles", "none", "-1,0", "7,0,1", "GPU-99", "0,0", "0,00", "x"]


@pytest.mark.parametrize("named", HIDDEN)
def test_what_names_no_gpu_hides_all(named: str) -> None:
    assert visible(named, 2, NAMES) == 0


@pytest.mark.parametrize(
    ("named", "count"),
    [
        *((None, 2), ("0", 1), ("1,0", 2), (" 1 , 0 ", 2), ("0,-1,1", 1), ("0,7,1", 1), ("0,", 1)),
        *(("GPU-8932", 1), ("GPU-8932,GPU-1111", 2), ("GPU-8932,GPU-99", 1), ("MIG-1c2b", 1)),
    ],
)
def test_what_is_named_counts_as_far_as_it_is_there(named: str | None, count: int) -> None:
    assert visible(named, 2, NAMES) == count
    assert visible(named, 0, []) == 0


@given(st.lists(st.integers(-2, 9), max_size=8), st.integers(0, 8))
def test_numbers_are_read_as_cuda_reads_them(named: list[int], files: int) -> None:
    before = next((place for place, one in enumerate(named) if not 0 <= one < files), len(named))
    kept = named[:before]
    assert visible(",".join(map(str, named)), files, []) == (len(kept) if len(set(kept)) == len(kept) else 0)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device files and names of two GPUs, and a torch that can use neither."""
    monkeypatch.setattr(machine, "gpu_files", lambda: 2)
    monkeypatch.setattr(machine, "gpu_names", lambda: NAMES)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("named", HIDDEN)
@pytest.mark.parametrize("resume", [False, True])
def test_memory_is_checked_where_gpus_are_hidden(monkeypatch: pytest.MonkeyPatch, named: str, resume: bool) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    base = tiny.config(name="r", resume=resume)
    config = replace(base, learner=replace(base.learner, device="auto", width=65536))
    with pytest.raises(ConfigError, match=r"--learner\.width 65536 needs .* of memory are available"):
        validate(config)
    assert learner_device("auto") == "cpu"
    with pytest.raises(ConfigError, match=r"--learner\.device cuda: this machine has no NVIDIA GPU"):
        validate(replace(base, learner=replace(base.learner, device="cuda")))


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_gpu_that_torch_cannot_use_is_told(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert this_machine().gpus == 2
    with pytest.raises(RunFailed, match=rf"--learner\.device {asked}: torch .* use --learner\.device cpu"):
        learner_device(asked)
    assert learner_device("cpu") == "cpu"
