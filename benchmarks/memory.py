"""Prints the memory that a learner takes of each GPU, by width and number of ranks. It is computed, not measured.

`python -m benchmarks.learner` prints in every row the memory that its process took and the memory computed here.
"""

from __future__ import annotations

import tyro

from learner.networks.spec import NetworkSpec
from learner.scale.memory import critic_parameters, footprint
from learner.spec import Sharding


def main(
    widths: tuple[int, ...] = (4096, 11264),
    ranks: tuple[int, ...] = (1, 2, 4, 8),
    precision: str = "bf16",
    sharding: Sharding = "tensor",
) -> None:
    """Print a table in gigabytes.

    Args:
        widths: widths of the critic.
        ranks: numbers of GPUs.
        precision: float32, tf32 or bf16.
        sharding: how several share the critic: replicate, tensor or shard.
    """
    for width in widths:
        networks = NetworkSpec(observation_size=223, action_size=38, num_tasks=4, width=width)
        print(f"\nwidth {width}, {critic_parameters(networks) / 1e6:,.0f} M parameters, batch 1024, {precision}\n")
        accounts = [
            footprint(networks, 1024, 4, precision, count, sharding if count > 1 else "replicate", 1, "cuda")
            for count in ranks
        ]
        print("| GPUs | " + " | ".join(map(str, ranks)) + " |\n|---|" + "---|" * len(ranks))
        for purpose in [name for name in accounts[0] if any(account[name] >= 5e6 for account in accounts)]:
            print(f"| {purpose.replace('_', ' ')} | " + " | ".join(f"{a[purpose] / 1e9:.2f}" for a in accounts) + " |")
        print("| all | " + " | ".join(f"{sum(account.values()) / 1e9:.2f}" for account in accounts) + " |")


if __name__ == "__main__":
    tyro.cli(main)
