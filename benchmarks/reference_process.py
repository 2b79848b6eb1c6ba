"""The reference's process: it holds the agent, makes updates when told to, and reports how long they took.

Its argument is a JSON object of settings. It writes one JSON object a line: first the missing packages, or the versions
if none is missing. Then it reads numbers of calls, one a line, from its standard input, and writes the seconds of each.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import types
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, TextIO

from replay.json_text import json_text

PACKAGES = ("jax", "flax", "optax", "distrax")


def main() -> None:
    settings = json.loads(sys.argv[1])
    # What the libraries print goes to standard error, so that it cannot be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        answer(answers, missing=missing)
        return
    call = updater(**settings)
    answer(answers, versions={name: version(name) for name in PACKAGES})
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            call()
        answer(answers, seconds=time.perf_counter() - started)


def answer(stream: TextIO, **fields: Any) -> None:
    stream.write(json_text(fields) + "\n")
    stream.flush()


def updater(
    reference: str,
    observation_size: int,
    action_size: int,
    num_tasks: int,
    width: int,
    batch_size: int,
    updates: int,
    products: str,
) -> Callable[[], None]:
    """Return a function that makes one call of the reference's update and waits until it is done. `products` is
    jax_default_matmul_precision."""
    sys.path.insert(0, reference)
    sys.modules["wandb"] = types.ModuleType("wandb")  # the reference's logger imports it; nothing is logged here
    jax, np = importlib.import_module("jax"), importlib.import_module("numpy")
    agents, utils = importlib.import_module("jaxrl.agent.brc_learner"), importlib.import_module("jaxrl.utils")
    jax.config.update("jax_default_matmul_precision", products)
    rng = np.random.default_rng(0)
    rows = (updates, batch_size)

    def normal(*shape: int) -> Any:
        return jax.numpy.asarray(rng.standard_normal(shape, dtype=np.float32))

    batches = utils.Batch(
        observations=normal(*rows, observation_size),
        actions=jax.numpy.asarray(rng.uniform(-1, 1, (*rows, action_size)).astype(np.float32)),
        rewards=normal(*rows),
        masks=jax.numpy.ones(rows, np.float32),
        next_observations=normal(*rows, observation_size),
        task_ids=jax.numpy.broadcast_to(jax.numpy.arange(batch_size) % num_tasks, rows),
    )
    agent = agents.BRC(
        0,
        normal(1, observation_size),
        normal(1, action_size),
        num_tasks,
        width_critic=width,
        updates_per_step=updates,
    )

    def call() -> None:
        info = agent.update(batches, updates, 0)
        jax.block_until_ready((info, agent.actor.params, agent.critic.params, agent.target_critic.params))

    return call


if __name__ == "__main__":
    main()
