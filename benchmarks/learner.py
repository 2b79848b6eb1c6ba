"""Updates by width, batch, precision and number of ranks, and how much of the machine's matmul rate they use.

Ours is the rate at which updates get through the floating-point operations of their dense layers, theirs that of
torch.mm of (batch x width) and (width x width) in the same precision with the same threads, or float32's where the
device has no instructions for bfloat16. The ratio is the fraction
reached; LayerNorms, losses, optimisers and the target's step are what is missing to 1. With several ranks on one
machine the threads are divided among them.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.report import alternate, compare
from learner.brc import BRCSettings
from learner.crew import Crew, allocate
from learner.footprint import NetworkSpec, footprint
from learner.learner import Learner, LearnerSpec
from learner.precision import Precision, multiplies_bfloat16
from learner.sharding import Ranks, join, meet
from replay.rows import Batches

OBSERVATION_SIZE, ACTION_SIZE, NUM_TASKS = 78, 21, 8
BATCHES = 4  # in a request


def main(
    widths: tuple[int, ...] = (256, 512, 1024),
    batches: tuple[int, ...] = (1024,),
    precisions: tuple[Precision, ...] = ("float32",),
    ranks: tuple[int, ...] = (1,),
    sharding: tuple[str, ...] = ("replicate",),
    seconds: float = 2.0,
    repeats: int = 5,
    threads: int = 0,
    device: str = "cpu",
) -> None:
    """Updates/s of the learner and the fraction of the matmul rate that they reach.

    Args:
        widths: widths of the critic.
        batches: rows in an update.
        precisions: of the products.
        ranks: processes that make an update together.
        sharding: how they share the critic; replicate or shard.
        seconds: length of a repeat of updates; one of matmuls takes half of it.
        repeats: repeats of each side.
        threads: threads of torch for all ranks together; 0 takes every core, as a run does.
        device: cpu or cuda.
    """
    threads = threads or os.cpu_count() or 1
    for width in widths:
        for batch_size in batches:
            for precision in precisions:
                for count in ranks:
                    for kind in sharding if count > 1 else ("replicate",):
                        spec = learner_spec(width, batch_size, precision, device, max(1, threads // count))
                        measure(spec, Ranks(0, count, kind), seconds, repeats, threads)  # type: ignore[arg-type]


def learner_spec(width: int, batch_size: int, precision: Precision, device: str, threads: int) -> LearnerSpec:
    return LearnerSpec(
        network_spec(width), BRCSettings(), batch_size, BATCHES, 1, 0, precision, device=device, threads=threads
    )


def measure(spec: LearnerSpec, ranks: Ranks, seconds: float, repeats: int, threads: int) -> None:
    """One row of the table. The process is a fresh one, so that its peak memory is this row's."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    members = [
        context.Process(target=member, args=(spec, ranks, rank, port, seconds, repeats, threads))
        for rank in range(ranks.count)
    ]
    for process in members:
        process.start()
    members[0].join()
    for process in members[1:]:
        process.kill()
    if members[0].exitcode:
        raise SystemExit(members[0].exitcode)


def member(spec: LearnerSpec, ranks: Ranks, rank: int, port: int, seconds: float, repeats: int, threads: int) -> None:
    ranks = Ranks(rank, ranks.count, ranks.sharding)
    torch.set_num_threads(spec.threads)
    before = peak_bytes(spec.device)
    if ranks.count > 1:
        join(ranks, meet(ranks, "127.0.0.1", port), spec.device, timeout_s=600.0)
    crew = Crew(Learner(spec, ranks))
    if rank > 0:
        crew.follow()
    batches = noise(spec)
    crew.train(batches, 0, False, lambda: None).finish()
    taken = peak_bytes(spec.device) - before
    gigaflop = update_flops(spec.networks, spec.batch_size) / 1e9
    dtype = torch.bfloat16 if spec.precision == "bf16" and multiplies_bfloat16(spec.device) else torch.float32
    width = spec.networks.width
    left = torch.randn(spec.batch_size, width, device=spec.device).to(dtype)
    right = torch.randn(width, width, device=spec.device).to(dtype)
    product = torch.empty_like(left)

    def ours() -> float:
        torch.set_num_threads(spec.threads)
        return BATCHES * gigaflop * calls_per_s(lambda: crew.train(batches, 0, False, lambda: None).finish(), seconds)

    def theirs() -> float:
        torch.set_num_threads(threads)  # the other ranks wait meanwhile

        def multiply() -> None:
            for _ in range(8):
                torch.mm(left, right, out=product)
            if spec.device == "cuda":
                torch.cuda.synchronize()

        return 8 * 2e-9 * spec.batch_size * width * width * calls_per_s(multiply, seconds / 2)

    case = f"w{width}-b{spec.batch_size}-{spec.precision}-ranks{ranks.count}"
    if ranks.count > 1:
        case += f"-{ranks.sharding}"
    result = compare("learner", case, "GFLOP/s", *alternate(ours, theirs, repeats))
    expected = footprint(
        spec.networks, spec.batch_size, BATCHES, spec.precision, ranks.count, ranks.sharding == "shard", 1, spec.device
    )
    del expected["checkpoint"]  # none is written here
    result.print(
        updates_per_s=result.ours / gigaflop,
        gigaflop_per_update=gigaflop,
        threads=threads,
        bytes_at_peak=taken,
        bytes_reckoned=sum(expected.values()),
        device=torch.cuda.get_device_name() if spec.device == "cuda" else "cpu",
    )


def peak_bytes(device: str) -> int:
    """The most that this process has held so far, on the device or, for a CPU, at all."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def noise(spec: LearnerSpec) -> Batches:
    """Batches of normal numbers, with finished episodes of every task."""
    batches, rng = allocate(spec, spec.batch_size), np.random.default_rng(0)
    for array in (batches.observations, batches.rewards, batches.next_observations):
        array[...] = rng.standard_normal(array.shape)
    batches.actions[...] = rng.uniform(-1, 1, batches.actions.shape)
    batches.masks[...] = 1.0
    batches.task_ids[...] = np.arange(spec.batch_size) % spec.networks.num_tasks
    batches.return_minimum[...], batches.return_maximum[...] = -10.0, 10.0
    return batches


def network_spec(width: int) -> NetworkSpec:
    return NetworkSpec(OBSERVATION_SIZE, ACTION_SIZE, NUM_TASKS, width)


def updater(width: int, batch_size: int, precision: Precision, threads: int) -> Callable[[], Any]:
    """BATCHES updates of a fresh learner, as it makes them in a run."""
    spec = learner_spec(width, batch_size, precision, "cpu", threads)
    learner, batches = Learner(spec), noise(spec)
    return lambda: learner.train(batches).finish()


def update_flops(spec: NetworkSpec, batch_size: int) -> int:
    """Floating-point operations in the dense layers of an update: two for each weight and row they meet."""

    def bronet(inputs: int, width: int, depth: int, outputs: int) -> int:
        return inputs * width + depth * 2 * width * width + width * outputs

    inputs = spec.observation_size + spec.action_size + spec.embedding_inputs
    critic = spec.heads * bronet(inputs, spec.width, spec.depth, spec.num_bins)
    critic_input = spec.heads * inputs * spec.width
    policy_inputs = spec.observation_size + spec.embedding_inputs
    policy = bronet(policy_inputs, spec.policy_width, spec.policy_depth, 2 * spec.action_size)
    policy_input = policy_inputs * spec.policy_width
    weights = (
        # Target forward; critic forward, its weights' gradients and its inputs'; then in the policy's loss forward and
        # the inputs' gradients alone.
        6 * critic
        # Without task embeddings nothing below the first layer learns from the critic's loss.
        - (0 if spec.embedding_inputs else critic_input)
        # Forward for the target and for the loss, the weights' gradients, the inputs' but for the first layer's.
        + 4 * policy
        - policy_input
    )
    return 2 * batch_size * weights


def calls_per_s(call: Callable[[], Any], seconds: float) -> float:
    calls, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        call()
        calls += 1
    return calls / elapsed


if __name__ == "__main__":
    tyro.cli(main)
