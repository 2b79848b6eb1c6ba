"""Short serial runs of three presets, and a digest of the final state of each.

`python -m tests.support.serial_runs` makes the runs and writes their digests for this kind of machine to
tests/golden/serial_runs.json. Call it after a change that is meant to change the results of a seed, or on a new kind of
machine.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from learner.networks import norm
from tests.support import tiny

GOLDEN = Path(__file__).parents[1] / "golden" / "serial_runs.json"
SHORT = ("--execution=serial", "--learner.device=cpu", "--evaluation.episodes=1", "--evaluation.interval=0")
RUNS = {
    "quickstart": ("--steps=2400",),
    "single-task": (
        "--tasks=dmc/cheetah-run",
        "--learner.width=32",
        "--learner.policy-width=32",
        "--learner.threads=1",
        "--learner.precision=float32",
        "--actors.count=1",
        "--replay.warmup=500",
        "--replay.capacity=5000",
        "--steps=600",
    ),
    "quickstart-discrete": ("--steps=700",),
}


def machine() -> str:
    """Return the kind of processor, whether there is our kernel, and the versions of the libraries. These decide the
    order of floating-point sums."""
    cpu = Path("/proc/cpuinfo")
    found = (
        dict(re.findall(r"^(vendor_id|cpu family|model)\s*:\s*(.*)$", cpu.read_text(), re.M)) if cpu.exists() else {}
    )
    kind = " ".join(found.values()) or platform.processor()
    libraries = [f"{name} {version(name)}" for name in ("torch", "numpy", "mujoco", "envpool")]
    kernel = "without norm.c" if norm.KERNEL is None else "norm.c"
    return ", ".join([kind, torch.backends.cpu.get_cpu_capability(), kernel, *libraries])


def tensors(value: Any) -> list[torch.Tensor]:
    """Return all tensors of nested containers."""
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in tensors(item)]


def made(folder: Path, preset: str) -> dict[str, Any]:
    """Train a run to its end. Return its updates, the returns of its evaluations, and a digest and the norms of all
    tensors of its last checkpoint, whatever their names are."""
    command = ["train", preset, *SHORT, *RUNS[preset], f"--runs-folder={folder}/runs", f"--name={preset}"]
    tiny.succeed(tiny.command(command))
    newest = sorted((folder / "runs" / preset / "checkpoints").glob("[0-9]*"))[-1]
    dcp_to_torch_save(newest, folder / "state.pt")
    found = tensors(torch.load(folder / "state.pt", weights_only=False))
    digests = sorted(hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest() for tensor in found)
    floats = [tensor.double() for tensor in found if tensor.is_floating_point()]
    sizes = sorted(float(tensor.norm()) for tensor in floats if tensor.isfinite().all())
    return {
        "updates": tiny.rows(folder, preset, "metrics")[-1]["updates"],
        "digest": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "norms": sizes,
        "returns": [row["returns"] for row in tiny.rows(folder, preset, "eval")],
    }


def main() -> None:
    golden: dict[str, Any] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for preset in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            golden.setdefault(preset, {})[machine()] = made(Path(folder), preset)
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
