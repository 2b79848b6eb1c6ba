"""Tests of the Ray process of an actor: its answers before it has made its environments, and its measured memory."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayTaskError

from actors.actor import Actor
from actors.process import ActorProcess, start_actor
from benchmarks.actors import memory_of_actor
from cluster.plan.plan import Plan, make_plan
from replay.policy_store import PolicyStore
from replay.process import RayShard, start_shard
from tests.support import tiny
from tests.support.live import wait_until


@pytest.fixture(scope="module")
def plan() -> Iterator[Plan]:
    """Start a local Ray, and yield the plan of a tiny run in it."""
    with tempfile.TemporaryDirectory(prefix="brc-", ignore_cleanup_errors=True) as folder:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        made = make_plan(tiny.config())
        shard = replace(made.shards[0], folder=str(Path(folder) / "0"), snapshots=str(Path(folder) / "snapshots"))
        yield replace(made, shards=(shard,))
        ray.shutdown()


@pytest.fixture
def actor(plan: Plan) -> Iterator[ActorHandle]:
    """Yield an actor that is not built."""
    shard = start_shard(plan.shards[0])
    store = ray.remote(PolicyStore).options(num_cpus=0, max_concurrency=2).remote(ray.put)
    handle = start_actor(plan.actor(plan.everything()), [RayShard(shard)], store, {}, num_cpus=0)
    yield handle
    for one in (handle, shard, store):
        ray.kill(one)


def test_started_before_it_is_built_it_collects(actor: ActorHandle) -> None:
    ray.get(actor.start.remote())
    wait_until(lambda: ray.get(actor.report.remote()).transitions)
    ray.get(actor.stop.remote())


def test_a_report_before_it_is_built_is_refused_in_a_sentence(actor: ActorHandle) -> None:
    with pytest.raises(RayTaskError, match="is not built: call build or start"):
        ray.get(actor.report.remote())
    ray.get(actor.build.remote())
    assert ray.get(actor.report.remote()).silent_s == 0.0


@pytest.mark.parametrize("told", ["stop", "leave"])
def test_one_that_was_told_to_end_is_of_no_use_to_another_coordinator(actor: ActorHandle, told: str) -> None:
    ray.get(actor.start.remote())
    ray.get(getattr(actor, told).remote())
    with pytest.raises(RayTaskError, match="was told to end before the coordinator died"):
        ray.get(actor.build.remote())


def test_an_environment_that_exits_is_a_failure(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    process = ActorProcess(plan.actor(plan.everything()), [], None)

    def leave() -> Actor:
        sys.exit("the licence has expired")

    monkeypatch.setattr(process, "_built", leave)
    process._collect()
    with pytest.raises(RuntimeError, match="the licence has expired"):
        process.report()


def test_the_benchmark_of_memory_measures_an_actor_that_is_built(plan: Plan) -> None:
    without_pools_mb, pools_mb = memory_of_actor(plan)
    assert without_pools_mb > 0.0 and pools_mb > 0.0
