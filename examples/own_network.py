"""03: a network of your own: `python -m examples.own_network`.

The network is described once, as data. Torch trains it, actors run it in numpy, `brc export` writes it as ONNX. Another
package registers its network by an entry point of the group brc.networks; CONTRIBUTING.md says how.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from examples.own_environment import TASK
from examples.short import config, trained
from learner.networks.architectures import ARCHITECTURES, Architecture, unit_gain
from learner.networks.description import Dense, LayerNorm, Layers, ReLU


def funnel(width: int, depth: int) -> Layers:
    """Return layers of Dense, LayerNorm and ReLU, each half as wide as the one before."""
    return tuple(
        layer
        for index in range(depth + 1)
        for layer in (Dense(f"hidden.{index}", width >> index), LayerNorm(f"norms.{index}"), ReLU())
    )


FUNNEL = Architecture(funnel, unit_gain)


def main(folder: Path) -> dict[str, float | None]:
    """Return the mean returns of the random policy and after training."""
    ARCHITECTURES["funnel"] = FUNNEL
    random, learned = trained(config(folder, (TASK,), 2500, network="funnel", width=64, policy_width=64))
    return {"random": random.mean_return[TASK], "learned": learned.mean_return[TASK]}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(main(Path(temporary)))
