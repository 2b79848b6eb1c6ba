"""Measures what this project does on a GPU, in short stages, and writes a page of results.

Each row is written to a file as soon as it is measured. A row that fails is written with its error, and the next row is
measured. Every stage takes less than nine minutes at the published sizes, and can be run by itself:

- tests: the tests that use a GPU where there is one.
- ceilings: rates of copies and of products, the limits of everything that follows.
- updates: updates per second by precision, width and batch, recorded or not, with kernels in Triton or without.
- kernels: the kernels that take most of an update's time.
- reference: updates beside those of the JAX reference, whose products have a named precision.
- training: dmc-dogs for some minutes. The next call goes on where this one stopped.

The page compares the rates with the floor of an update, which is its products at the measured rate of products.

All stages but `tests` and `training` need only torch, numpy, tyro and what tyro needs, for machines without an index of
packages.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from benchmarks.learner import BATCHES, calls_per_s, learner_spec, noise, update
from benchmarks.report import rounded, versions
from dashboards.sinks import records
from learner.config import Device
from learner.learner import Learner
from learner.scale.cuda_graph import WARM_UP
from learner.scale.precision import Precision, multiplies_bfloat16, set_products
from replay.json_text import json_text

if TYPE_CHECKING:
    from benchmarks.sample_efficiency import Curves

Stage = Literal["tests", "ceilings", "updates", "kernels", "reference", "training"]
Row = dict[str, Any]
ROWS, PAGE, FIGURE, RUN = "rows.jsonl", "results.md", "dmc-dogs.png", "dmc-dogs"
# Precisions of the reference's products, as JAX names them: type of the factors, of products, of sums. JAX's own
# "float32" and "bfloat16" mean other things on other devices.
ALGORITHMS = ("F32_F32_F32", "TF32_TF32_F32", "BF16_BF16_F32")
INTERRUPTED = 130  # exit code of a run that was stopped and can go on
PRODUCTS = 8  # between two waits for the device
TESTS = ("tests/unit/test_golden.py", "tests/unit/test_device.py", "tests/unit/test_triton.py")


@dataclass(frozen=True)
class Settings:
    """Sizes of what is measured.

    Attributes:
        device: cuda, or cpu with small sizes to see that this works.
        widths: widths of the critic; the first one is measured in every way, the others in bf16 only.
        batches: numbers of rows in an update, as for widths.
        seconds: length of a repeat of updates.
        repeats: repeats of each measurement.
        minutes: minutes of training in one call.
        reference: checkout of naumix/BiggerRegularizedCategorical; None leaves that stage out.
        python: interpreter that has jax, flax, optax and distrax.
        limit: seconds after which a case is given up.
        train: more options of `brc train`, as in --settings.train="--steps=100000 --execution=serial".
    """

    device: Device = "cuda"
    widths: tuple[int, ...] = (4096, 512, 1024, 2048, 8192, 11264)
    batches: tuple[int, ...] = (1024, 256, 4096)
    seconds: float = 2.0
    repeats: int = 5
    minutes: float = 8.0
    reference: Path | None = None
    python: str = sys.executable
    train: str = ""
    limit: float = 240.0

    @property
    def precisions(self) -> tuple[Precision, ...]:
        return ("bf16", "tf32", "float32") if self.device == "cuda" else ("float32", "bf16")


def main(
    stages: tuple[Stage, ...] = ("tests", "ceilings", "updates", "kernels", "reference", "training"),
    out: Path = Path("gpu-proof"),
    settings: Settings = Settings(),
) -> int:
    """Run stages and write `rows.jsonl` and `results.md` to a folder. Rows of earlier calls stay. Exit code 1 if a row
    has failed, 2 without a GPU."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        print("gpu_proof: torch finds no GPU here; see --help for what shows that this works on a CPU", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    failed = False
    for stage in stages:
        for row in guarded(stage, settings, out):
            failed |= "failed" in row
            line = json_text(rounded({"stage": stage} | row))
            print(line, flush=True)
            with (out / ROWS).open("a") as file:
                file.write(line + "\n")
            (out / PAGE).write_text(page(read(out)))
    return int(failed)


def guarded(stage: Stage, settings: Settings, out: Path) -> Iterator[Row]:
    """Yield the rows of a stage, and a row with its error if it fails as a whole."""
    started = time.perf_counter()
    try:
        yield from STAGES[stage](settings, out)
    except Exception as error:
        yield {"failed": f"{type(error).__name__}: {error}"}
    yield {"took_s": time.perf_counter() - started, "device": device_name(settings.device), "versions": versions()}


def tests(settings: Settings, out: Path) -> Iterator[Row]:
    """Yield the outcome of the tests that use a GPU where there is one."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    code, said = run(command, out / "tests.log", settings.limit)
    with (out / "tests.log").open("a") as log:
        log.write(said)
    summary = (said.strip().splitlines() or [""])[-1]
    yield {"case": "tests", "summary": summary} | ({"failed": summary or f"exit code {code}"} if code else {})


def run(command: list[str], log: Path, limit: float) -> tuple[int, str]:
    """Run a command for `limit` seconds at most. Append what it writes to standard error to the log. Return (its exit
    code, what it has written to standard output). The exit code is 124 if it was ended."""
    with log.open("a") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            said, _ = process.communicate(timeout=limit)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            code = 124
    return code, said


def ceilings(settings: Settings, out: Path) -> Iterator[Row]:
    """Yield the rates of a copy and, for each precision, of a product of the sizes of an update."""
    width, rows, device = settings.widths[0], settings.batches[0], settings.device
    big = torch.empty(max(width * width, 1 << 20) * 8, device=device)
    other = torch.empty_like(big)

    def copy() -> None:
        other.copy_(big)
        wait(device)

    copy()  # kernels are loaded in the first call
    yield {"case": "copy", "gigabytes_per_s": 2 * big.nbytes * calls_per_s(copy, settings.seconds) / 1e9}
    for precision in settings.precisions:
        set_products(precision)
        dtype = torch.bfloat16 if precision == "bf16" and multiplies_bfloat16(device) else torch.float32
        left = torch.randn(2, rows, width, device=device).to(dtype)
        right = torch.randn(2, width, width, device=device).to(dtype)
        multiply(left, right, device)
        rate = calls_per_s(partial(multiply, left, right, device), settings.seconds)
        teraflop = PRODUCTS * 4e-12 * rows * width * width * rate
        yield {"case": f"product-{precision}", "teraflop_per_s": teraflop, "rows": rows, "width": width}


def multiply(left: torch.Tensor, right: torch.Tensor, device: Device) -> None:
    for _ in range(PRODUCTS):
        torch.bmm(left, right)
    wait(device)


def updates(settings: Settings, out: Path) -> Iterator[Row]:
    """Yield a row of `benchmarks.learner` for each kind of update, each in a process of its own."""
    width, rows = settings.widths[0], settings.batches[0]
    recorded = ("True", "False") if settings.device == "cuda" else ("True",)
    cases = [(width, rows, precision, record, "True") for precision in settings.precisions for record in recorded]
    cases += [(width, rows, "bf16", "True", "False")] if settings.device == "cuda" else []
    cases += [(other, rows, "bf16", "True", "True") for other in settings.widths[1:]]
    cases += [(width, other, "bf16", "True", "True") for other in settings.batches[1:]]
    for case in cases:
        names = ("widths", "batches", "precisions", "record", "triton")
        yield from benchmark(settings, out, dict(zip(names, case, strict=True)))


def benchmark(settings: Settings, out: Path, case: dict[str, Any], *more: str) -> Iterator[Row]:
    """Yield the rows that `benchmarks.learner` prints for a case."""
    command = [sys.executable, "-m", "benchmarks.learner", f"--device={settings.device}"]
    command += [f"--seconds={settings.seconds}", f"--repeats={settings.repeats}", *more]
    for name, value in case.items():
        command += [f"--{name}", str(value)]
    log = out / "benchmarks.log"
    code, said = run(command, log, settings.limit)
    for line in said.splitlines():
        if line.startswith("{"):
            yield case | json.loads(line)
    if code:
        last = (log.read_text().strip().splitlines() or [""])[-1]
        why = f"ended after {settings.limit:g} s" if code == 124 else f"exit code {code}: {last}"
        yield {"case": " ".join(map(str, case.values())), "failed": why} | case


def kernels(settings: Settings, out: Path, count: int = 12) -> Iterator[Row]:
    """Yield the largest shares of the device's time in an update: by kernel on a GPU, else by operation."""
    on_gpu, width, rows = settings.device == "cuda", settings.widths[0], settings.batches[0]
    spec = learner_spec(width, rows, settings.precisions[0], settings.device, torch.get_num_threads())
    learner, batches = Learner(spec), noise(spec)
    for _ in range(WARM_UP):  # each is several updates: the first call records one already
        update(learner, batches)
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as trace:
        update(learner, batches)
    events = trace.key_averages()
    times = {event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in events}
    launches = sum(event.count for event in events if times[event.key] > 0)
    whole = sum(times.values())
    largest = sorted(times, key=lambda key: -times[key])[:count]
    yield {
        "case": f"kernels-w{width}-b{rows}-{settings.precisions[0]}",
        "kernels_per_update": launches / BATCHES,
        "shares": {key: times[key] / whole for key in largest},
    }


def reference(settings: Settings, out: Path) -> Iterator[Row]:
    """Yield our updates beside the reference's, for each of its precisions."""
    if settings.reference is None:
        return
    ours = {"F32_F32_F32": "float32", "TF32_TF32_F32": "tf32", "BF16_BF16_F32": "bf16"}
    for algorithm in ALGORITHMS:
        if ours[algorithm] not in settings.precisions:
            continue
        case = {"widths": settings.widths[0], "batches": settings.batches[0], "precisions": ours[algorithm]}
        more = [f"--reference={settings.reference}", f"--python={settings.python}", "--reference-products", algorithm]
        yield from benchmark(settings, out, case, *more)


def training(settings: Settings, out: Path) -> Iterator[Row]:
    """Train dmc-dogs, or go on, for some minutes. Yield its newest returns, and draw all over the published curves."""
    command = [sys.executable, "-m", "cluster", "train", "dmc-dogs", f"--name={RUN}", f"--runs-folder={out}"]
    command += [f"--learner.width={settings.widths[0]}", f"--learner.device={settings.device}"]
    command += ["--evaluation.interval=5000", "--checkpoint-interval=5000", *shlex.split(settings.train)]
    # A run that was ended before its first checkpoint cannot go on.
    if (out / RUN / "config.yaml").exists():
        if any((out / RUN / "checkpoints").glob("*")):
            command.append("--resume")
        else:
            shutil.rmtree(out / RUN)
    with (out / "training.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        stopped = False
        try:
            code = process.wait(timeout=60 * settings.minutes)
        except subprocess.TimeoutExpired:
            stopped = True
            process.send_signal(signal.SIGINT)  # it writes a checkpoint and ends
            try:
                code = process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
    found = records.read(out / RUN / "eval.jsonl") if (out / RUN / "eval.jsonl").exists() else []
    evaluations = [row for row in found if row["policy"] != "random"]
    if evaluations:
        yield {"case": RUN, "env_steps": evaluations[-1]["env_steps"], "return": evaluations[-1]["return"]}
    if code != (INTERRUPTED if stopped else 0) or not evaluations:
        yield {"case": RUN, "failed": f"brc train ended with exit code {code} and {len(evaluations)} evaluations"}
    if evaluations:
        from benchmarks.sample_efficiency import draw  # it needs matplotlib, which a bare machine may lack

        draw(over_published(evaluations), out / FIGURE)


def over_published(evaluations: list[dict[str, Any]]) -> Curves:
    """Return our curves and the paper's, of every task."""
    from dashboards.report import published

    curves: Curves = {}
    for task in evaluations[0]["return"]:
        curves[task] = {"ours": [[(row["env_steps"], row["return"][task]) for row in evaluations]]}
        if paper := published.curve(task):
            points = list(zip(paper.steps, paper.mean, strict=True))
            curves[task][f"paper, mean of {paper.seeds} seeds"] = [points]
    return curves


STAGES: dict[Stage, Callable[[Settings, Path], Iterator[Row]]] = {
    "tests": tests,
    "ceilings": ceilings,
    "updates": updates,
    "kernels": kernels,
    "reference": reference,
    "training": training,
}


def wait(device: Device) -> None:
    """Wait until the device has done what was asked."""
    if device == "cuda":
        torch.cuda.synchronize()


def device_name(device: Device) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def read(out: Path) -> list[Row]:
    """Return all rows of a folder."""
    return [json.loads(line) for line in (out / ROWS).read_text().splitlines()]


def page(rows: list[Row]) -> str:
    """Return all rows as a page of Markdown."""
    rates = {row["case"]: row for row in rows if row["stage"] == "ceilings" and "case" in row}
    names = sorted({row["device"] for row in rows if "device" in row and "took_s" in row})
    lines = [f"# Results on {', '.join(names) or 'a device'}", ""]
    lines += ["| rate of | measured |", "|---|---|"]
    for name, row in rates.items():
        value = row.get("gigabytes_per_s") or row.get("teraflop_per_s")
        lines.append(f"| {name} | {value:.4g} {'GB/s' if 'gigabytes_per_s' in row else 'TFLOP/s'} |")
    lines += [
        "",
        "| width | rows | precision | recorded | Triton | updates/s | of the floor | memory |",
        "|" + "---|" * 8,
    ]
    for row in rows:
        if row["stage"] == "updates" and "updates_per_s" in row:
            product = rates.get(f"product-{row['precisions']}")
            floor = (
                f"{row['updates_per_s'] * row['gigaflop_per_update'] / 1e3 / product['teraflop_per_s']:.2f}"
                if product is not None
                else ""
            )
            lines.append(
                f"| {row['widths']} | {row['batches']} | {row['precisions']} | {row['record']} | {row['triton']} "
                f"| {row['updates_per_s']:.4g} | {floor} | {row['bytes_at_peak'] / 1e9:.3g} GB |"
            )
    compared = [row for row in rows if row["stage"] == "reference" and "reference_updates_per_s" in row]
    if compared:
        lines += ["", "| case | updates/s | reference | ratio |", "|---|---|---|---|"]
        for row in compared:
            ours, theirs = row["updates_per_s"], row["reference_updates_per_s"]
            lines.append(f"| {row['case']} | {ours:.4g} | {theirs:.4g} | {row['ratio']:.3g} |")
    for row in rows:
        if "shares" in row:
            lines += ["", f"| {row['case']}, {row['kernels_per_update']:g} an update | share |", "|---|---|"]
            lines += [f"| `{name[:80]}` | {share:.3f} |" for name, share in row["shares"].items()]
        if "return" in row:
            lines += ["", f"{row['case']} after {row['env_steps']:,} steps: {json_text(row['return'])}"]
    lines += [
        "",
        *(f"- {row['stage']} {row.get('case', '')}: FAILED, {row['failed']}" for row in rows if "failed" in row),
    ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
