"""Measures updates by width, batch, precision, recording and number of ranks, and their share of the matmul rate.

Ours is the rate of the floating-point operations in the dense layers of updates. Theirs is the rate of torch.mm of
(batch x width) and (width x width) in the same precision with the same threads, or in float32 where the device has no
instructions for bfloat16. The ratio is the fraction reached; LayerNorms, losses, optimisers and the target's step take
the rest of the time. With several ranks on one machine the threads are divided among them.

With --reference, a second row compares each kind of update on one rank with the JAX reference's on the same device.
With --data-wait, a short run of the quickstart's tasks at that width measures the share of time in which the learner
waits for replay.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.end_to_end import train
from benchmarks.reference import ReferenceUnavailable, compare_updates
from benchmarks.report import alternate, compare
from learner.config import Device, LearnerConfig
from learner.learner import Learner
from learner.networks.spec import network_spec
from learner.scale.crew import Crew, allocate
from learner.scale.cuda_graph import WARM_UP
from learner.scale.memory import footprint
from learner.scale.precision import Precision, multiplies_bfloat16
from learner.scale.reckoning import update_flops
from learner.scale.sharding import join, meet
from learner.spec import LearnerSpec, Ranks, Sharding
from replay.store.rows import Batches

OBSERVATION_SIZE, ACTION_SIZE, NUM_TASKS = 78, 21, 8
BATCHES = 4  # batches in a request


def main(
    widths: tuple[int, ...] = (256, 512, 1024),
    batches: tuple[int, ...] = (1024,),
    precisions: tuple[Precision, ...] = ("float32",),
    record: tuple[bool, ...] = (True,),
    triton: tuple[bool, ...] = (True,),
    ranks: tuple[int, ...] = (1,),
    sharding: tuple[Sharding, ...] = ("replicate",),
    seconds: float = 2.0,
    repeats: int = 5,
    threads: int = 0,
    device: Device = "cpu",
    data_wait: bool = False,
    reference: Path | None = None,
    reference_products: tuple[str, ...] = ("float32",),
    python: str = sys.executable,
) -> int:
    """Measure updates/s of the learner and the fraction of the matmul rate that they reach. Exit code 2 if the
    reference cannot be run.

    Args:
        widths: widths of the critic.
        batches: rows in an update.
        precisions: precisions of the matrix products.
        record: whether a GPU records its updates and replays them.
        triton: whether a GPU uses kernels in Triton.
        ranks: processes that make an update together.
        sharding: how the ranks share the critic; replicate, tensor or shard.
        seconds: length of a repeat of updates; a repeat of matmuls takes half of it.
        repeats: repeats of each side.
        threads: threads of torch for all ranks together; 0 takes every core, as a run does.
        device: cpu or cuda.
        data_wait: add the share of a run in which its learner waits for replay.
        reference: checkout of naumix/BiggerRegularizedCategorical, to compare with.
        reference_products: precisions of the reference's products, such as float32 or bfloat16, as JAX names them.
        python: interpreter that has jax, flax, optax and distrax.
    """
    threads = threads or os.cpu_count() or 1
    kinds = product(widths, batches, precisions, record, triton, ranks)
    for width, batch_size, precision, recorded, kernels, count in kinds:
        spec = learner_spec(width, batch_size, precision, device, max(1, threads // count), recorded, kernels)
        waiting = {"data_wait_share": data_wait_share(spec)} if data_wait and count == 1 else {}
        for kind in sharding if count > 1 else ("replicate",):
            measure(spec, Ranks(0, count, kind), seconds, repeats, threads, waiting)
        if reference is None or count > 1:
            continue
        for products in reference_products:
            try:
                compare_updates(
                    reference,
                    python,
                    case_name(spec),
                    partial(update, Learner(spec), noise(spec)),
                    BATCHES,
                    spec.networks,
                    batch_size,
                    products,
                    device,
                    seconds,
                    repeats,
                )
            except ReferenceUnavailable as error:
                print(f"learner: {error}", file=sys.stderr)
                return 2
    return 0


def case_name(spec: LearnerSpec) -> str:
    config = spec.config
    ways = f"{'' if config.record else '-eager'}{'' if config.triton else '-no-triton'}"
    return f"w{config.width}-b{config.batch_size}-{config.precision}{ways}"


def data_wait_share(spec: LearnerSpec) -> float:
    """Return the share of the learner's time, from its first to its last updates, in which it waits for replay. The run
    takes about half a minute."""
    options = {
        "--learner.width": spec.networks.width,
        "--learner.batch-size": spec.config.batch_size,
        "--learner.precision": spec.config.precision,
        "--learner.device": spec.config.device,
        "--learner.threads": spec.config.threads,
        "--steps": 1000 + max(32, round(30 / (sum(update_flops(spec.networks, spec.config)) / 1e11))),
        "--replay.warmup": 1000,
        "--evaluation.interval": 0,
        "--evaluation.episodes": 1,
        "--checkpoint-interval": 0,
    }
    flags = [] if spec.config.record else ["--learner.no-record"]
    rows = [row for row in train("quickstart", options, *flags) if row["updates"] > 0]
    spent = {
        name: rows[-1]["learner_seconds"][name] - rows[0]["learner_seconds"][name]
        for name in ("data_wait", "update", "publish")
    }
    found: float = spent["data_wait"] / sum(spent.values())
    return found


def learner_spec(
    width: int,
    batch_size: int,
    precision: Precision,
    device: Device,
    threads: int,
    record: bool = True,
    triton: bool = True,
) -> LearnerSpec:
    config = LearnerConfig(
        width=width,
        batch_size=batch_size,
        batches_per_request=BATCHES,
        precision=precision,
        device=device,
        threads=threads,
        record=record,
        triton=triton,
    )
    networks = network_spec(config, observation_size=OBSERVATION_SIZE, action_size=ACTION_SIZE, num_tasks=NUM_TASKS)
    return LearnerSpec(networks=networks, config=config, seed=0)


def measure(spec: LearnerSpec, ranks: Ranks, seconds: float, repeats: int, threads: int, extra: dict[str, Any]) -> None:
    """Measure and print one row, in new processes, so that the peak of memory is this row's."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    members = [
        context.Process(target=member, args=(spec, ranks, rank, port, seconds, repeats, threads, extra))
        for rank in range(ranks.count)
    ]
    for process in members:
        process.start()
    members[0].join()
    for process in members[1:]:
        process.kill()
    if members[0].exitcode:
        raise SystemExit(members[0].exitcode)


def member(
    spec: LearnerSpec,
    ranks: Ranks,
    rank: int,
    port: int,
    seconds: float,
    repeats: int,
    threads: int,
    extra: dict[str, Any],
) -> None:
    ranks = Ranks(rank, ranks.count, ranks.sharding)
    config = spec.config
    torch.set_num_threads(config.threads)
    if config.device == "cuda":
        torch.cuda.set_device(rank % torch.cuda.device_count())  # in a run, Ray shows each rank its own
    before = peak_bytes(config.device)
    if ranks.count > 1:
        join(ranks, meet(ranks, "127.0.0.1", port), config.device, timeout_s=600.0)
    crew = Crew(Learner(spec, ranks))
    if rank > 0:
        crew.follow()
    batches = noise(spec)
    for _ in range(WARM_UP + 1):
        crew.train(batches, 0, False, lambda: None).finish()
    taken = peak_bytes(config.device) - before
    gigaflop = sum(update_flops(spec.networks, config)) / 1e9
    dtype = torch.bfloat16 if config.precision == "bf16" and multiplies_bfloat16(config.device) else torch.float32
    width = spec.networks.width
    left = torch.randn(config.batch_size, width, device=config.device).to(dtype)
    right = torch.randn(width, width, device=config.device).to(dtype)
    product = torch.empty_like(left)

    def ours() -> float:
        torch.set_num_threads(config.threads)
        return BATCHES * gigaflop * calls_per_s(lambda: crew.train(batches, 0, False, lambda: None).finish(), seconds)

    def theirs() -> float:
        torch.set_num_threads(threads)  # the other ranks wait meanwhile

        def multiply() -> None:
            for _ in range(8):
                torch.mm(left, right, out=product)
            if config.device == "cuda":
                torch.cuda.synchronize()

        return 8 * 2e-9 * config.batch_size * width * width * calls_per_s(multiply, seconds / 2)

    case = f"{case_name(spec)}-ranks{ranks.count}"
    if ranks.count > 1:
        case += f"-{ranks.sharding}"
    result = compare("learner", case, "GFLOP/s", *alternate(ours, theirs, repeats))
    expected = footprint(
        spec.networks,
        config.batch_size,
        BATCHES,
        config.precision,
        ranks.count,
        ranks.sharding,
        1,
        config.device,
    )
    expected.pop("checkpoint", None)  # none is written here
    result.print(
        updates_per_s=result.ours / gigaflop,
        gigaflop_per_update=gigaflop,
        threads=threads,
        bytes_at_peak=taken,
        bytes_reckoned=sum(expected.values()),
        device=torch.cuda.get_device_name() if spec.config.device == "cuda" else "cpu",
        **extra,
    )
    os._exit(0)  # in a normal exit, threads of a process group may abort the interpreter


def peak_bytes(device: str) -> int:
    """Return the most bytes that this process has held so far: on the GPU, or for a CPU in all."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    # VmHWM is of this program alone. The peak of getrusage may be the parent's, from before the program began.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


def noise(spec: LearnerSpec) -> Batches:
    """Return batches of normal numbers, with finished episodes of every task."""
    batches, rng = allocate(spec, spec.config.batch_size), np.random.default_rng(0)
    for array in (batches.observations, batches.rewards, batches.next_observations):
        array[...] = rng.standard_normal(array.shape)
    batches.actions[...] = rng.uniform(-1, 1, batches.actions.shape)
    batches.masks[...] = 1.0
    batches.task_ids[...] = np.arange(spec.config.batch_size) % spec.networks.num_tasks
    batches.return_minimum[...], batches.return_maximum[...] = -10.0, 10.0
    return batches


def update(learner: Learner, batches: Batches) -> None:
    """Make BATCHES updates, as a run does."""
    learner.train(batches).finish()


def calls_per_s(call: Callable[[], Any], seconds: float) -> float:
    calls, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        call()
        calls += 1
    return calls / elapsed


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
