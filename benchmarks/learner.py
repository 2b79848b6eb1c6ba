"""How much of the machine's matmul rate an update uses.

Ours is the rate at which learner.brc.update gets through the floating-point operations of its dense layers, theirs that
of torch.mm of (batch x width) and (width x width) with the same threads. The ratio is the fraction reached; LayerNorms,
losses, optimisers and the target's step are what is missing to 1.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch
import tyro

from benchmarks.report import alternate, compare
from learner import brc
from learner.brc import Batch, BRCSettings, Noise
from learner.footprint import NetworkSpec

OBSERVATION_SIZE, ACTION_SIZE, NUM_TASKS = 78, 21, 8
SETTINGS = BRCSettings()


def main(
    widths: tuple[int, ...] = (256, 512, 1024),
    batches: tuple[int, ...] = (1024,),
    seconds: float = 2.0,
    repeats: int = 5,
    threads: int = 0,
) -> None:
    """Updates/s of the learner and the fraction of the matmul rate that they reach.

    Args:
        widths: widths of the critic.
        batches: rows in an update.
        seconds: length of a repeat of updates; one of matmuls takes half of it.
        repeats: repeats of each side.
        threads: threads of torch; 0 takes every core, as a run does.
    """
    torch.set_num_threads(threads or os.cpu_count() or 1)
    for width in widths:
        for batch_size in batches:
            compare_rates(width, batch_size, seconds, repeats)


def compare_rates(width: int, batch_size: int, seconds: float, repeats: int) -> None:
    spec = network_spec(width)
    gigaflop = update_flops(spec, batch_size) / 1e9
    update = updater(spec, batch_size)
    left, right = torch.randn(batch_size, width), torch.randn(width, width)
    product = torch.empty(batch_size, width)
    update()  # allocates the optimisers' state

    def ours() -> float:
        return gigaflop * calls_per_s(update, seconds)

    def theirs() -> float:
        return 2e-9 * batch_size * width * width * calls_per_s(lambda: torch.mm(left, right, out=product), seconds / 2)

    result = compare("learner", f"w{width}-b{batch_size}-float32", "GFLOP/s", *alternate(ours, theirs, repeats))
    result.print(updates_per_s=result.ours / gigaflop, gigaflop_per_update=gigaflop, threads=torch.get_num_threads())


def network_spec(width: int) -> NetworkSpec:
    return NetworkSpec(OBSERVATION_SIZE, ACTION_SIZE, NUM_TASKS, width)


def updater(spec: NetworkSpec, batch_size: int) -> Callable[[], None]:
    """One update of a fresh agent on one batch of noise, drawing the update's own noise included."""
    torch.manual_seed(0)
    state = brc.initial_state(spec, SETTINGS)
    batch = Batch(
        torch.randn(batch_size, spec.observation_size),
        torch.rand(batch_size, spec.action_size) * 2 - 1,
        torch.randn(batch_size),
        torch.ones(batch_size),
        torch.randn(batch_size, spec.observation_size),
        torch.arange(batch_size) % spec.num_tasks,
    )

    def update() -> None:
        noise = torch.randn(2, batch_size, spec.action_size)
        brc.update(state, batch, Noise(noise[0], noise[1]), SETTINGS)

    return update


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
