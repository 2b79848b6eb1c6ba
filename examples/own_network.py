"""03: a network of your own: `python -m examples.own_network`.

The network is described once, as data. Torch trains it, actors run it in numpy, `brc export` writes it as ONNX. Another
package registers its network by an entry point of the group brc.networks; CONTRIBUTING.md says how.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from examples.own_environment import TASK
from examples.short import config, trained
from learner.networks.description import Dense, LayerNorm, Layers, ReLU, Residual
from learner.networks.registry import TRUNKS


def simba(width: int, depth: int, outputs: int) -> Layers:
    """Return SimBa (arXiv 2410.09754): blocks x + Dense(ReLU(Dense(LN(x)))), four times as wide inside, and a final
    LayerNorm."""
    inner = (LayerNorm("norm"), Dense("wide", 4 * width), ReLU(), Dense("narrow", width))
    blocks = tuple(Residual(f"blocks.{index}", inner) for index in range(depth))
    output = (Dense("output", outputs, gain=1.0),) if outputs else ()
    return (Dense("input", width, gain=1.0), *blocks, LayerNorm("last_norm"), *output)


def main(folder: Path) -> dict[str, float | None]:
    """Return the mean returns of the random policy and after training."""
    TRUNKS["simba"] = simba
    random, learned = trained(config(folder, (TASK,), 2500, network="simba", width=32, policy_width=32))
    return {"random": random.mean_return[TASK], "learned": learned.mean_return[TASK]}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(main(Path(temporary)))
