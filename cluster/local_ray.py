"""A Ray of this run's own on this machine."""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from cluster.plan import Plan

# Shared memory for what is in flight: batches, pushes, policies. Replay itself is in the shards' files.
LEAST_STORE_BYTES = 200_000_000


@contextmanager
def local_ray(plan: Plan) -> Iterator[None]:
    """Ray up inside the block and down after it. It declares as many CPUs as the actors ask for, cores or not."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # only this run's processes use it, on the loopback
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    config = plan.config
    batch = 8 * config.learner.batch_size * (plan.observation_size + plan.action_size + 4)
    in_flight = (config.learner.requests_in_flight + 1) * config.learner.batches_per_request * batch
    folder = config.ray_folder and str(Path(config.ray_folder).resolve())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, math.ceil(plan.actor_cpus) + 1),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        object_store_memory=max(LEAST_STORE_BYTES, 4 * in_flight),
        _temp_dir=folder or None,
    )
    for number, handler in handlers.items():
        signal.signal(number, handler)  # Ray has put its own in their place
    try:
        yield
    finally:
        ray.shutdown()
