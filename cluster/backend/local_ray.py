"""A private Ray of one run on this machine."""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Iterator
from contextlib import chdir, contextmanager

import ray

from cluster.errors import RunFailed
from cluster.plan.plan import Plan
from cluster.preflight.ray_folder import ray_folder

# Shared memory for batches, pushes and policies in flight. Replay itself is in the shards' files.
LEAST_STORE_BYTES = 200_000_000


@contextmanager
def local_ray(plan: Plan, gpus: int = 0) -> Iterator[None]:
    """Run Ray inside the block, and end it after the block. Declare the CPUs that the actors ask for, even beyond the
    machine's cores, and all GPUs that the learner may have: Ray may see fewer GPUs than torch, and a learner would then
    wait for a GPU for ever.

    Raises RunFailed, and leaves nothing running, when Ray does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # only this run's processes use it, on the loopback
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    config = plan.config
    batch = 8 * config.learner.batch_size * (plan.observation_size + plan.privileged_size + plan.action_size + 4)
    in_flight = (config.learner.requests_in_flight + 1) * config.learner.batches_per_request * batch
    folder, _ = ray_folder(config.ray_folder)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Ray's processes search for modules first in the folder where Ray was started.
        with chdir(folder):
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, math.ceil(plan.actor_cpus) + 1),
                num_gpus=gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                object_store_memory=max(LEAST_STORE_BYTES, 4 * in_flight),
                _temp_dir=str(folder),
            )
    except Exception as error:  # Ray raises many kinds of errors here
        ray.shutdown()
        raise RunFailed(f"Ray does not start in {folder}: {type(error).__name__}: {error}") from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray has replaced them by its own
    try:
        yield
    finally:
        ray.shutdown()
