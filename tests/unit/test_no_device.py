"""What a learner asks of a GPU, found on fake tensors of a device that does not exist (tests/support/no_device.py)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.no_device import NETWORKS, PRECISIONS

SUPPORT = Path(__file__).parents[1] / "support"
UPDATES = 2
CASTS = dict.fromkeys(NETWORKS, 0) | {"discrete": 1, "images": 3}  # of discrete actions, and of images' bytes
HALVES = {"xqc": 2, "flash": 2}  # the outputs for next states, and for states, of a joint batch, for one kernel each


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each kind of learner asks of the device, by case."""
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    library = tmp_path_factory.mktemp("no_device") / "no_device.so"
    parts = Path(torch.__file__).parent
    compile = ["c++", "-shared", "-fPIC", "-std=c++20", f"-I{parts}/include", str(SUPPORT / "no_device.cpp"), "-o"]
    subprocess.run([*compile, str(library), f"-L{parts}/lib", "-lc10", "-ltorch_cpu"], check=True, timeout=200)
    command = [sys.executable, "-m", "tests.support.no_device", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return {row["case"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_updates_never_wait_for_the_device(asked: dict[str, dict[str, Any]]) -> None:
    """A wait ends the process with an error. A request goes to the device in eight copies; metrics come back in one."""
    assert len(asked) == len(NETWORKS) * len(PRECISIONS)
    for case, row in asked.items():
        assert row["copies"] == {"cpu to nothing": 8, "nothing to cpu": 1}, case


def test_nothing_is_copied_on_the_device_by_mistake(asked: dict[str, dict[str, Any]]) -> None:
    """In float32 nothing changes its dtype but what has to, and no tensor is copied to be contiguous."""
    for kind, casts in CASTS.items():
        for precision in ("float32", "tf32"):
            operations = asked[f"{kind} {precision}"]["operations"]
            assert operations.get("_to_copy.default", 0) == casts * UPDATES, (kind, precision)
            assert operations.get("clone.default", 0) == HALVES.get(kind, 0) * UPDATES, (kind, precision)


def test_bfloat16_reads_and_writes_no_more_than_casts_take(asked: dict[str, dict[str, Any]]) -> None:
    for kind in CASTS:
        exact, rounded = (asked[f"{kind} {precision}"]["operations"] for precision in ("float32", "bf16"))
        more = {name: count for name, count in rounded.items() if count > exact.get(name, 0)}
        assert set(more) <= {"_to_copy.default", "copy_.default", "bmm.default", "bmm.dtype_out", "add.Tensor"}, kind
