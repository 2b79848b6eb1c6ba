"""Tests of the reckoning by which ranks choose how they share a critic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from learner.config import LearnerConfig
from learner.networks.spec import NetworkSpec
from learner.scale.memory import footprint
from learner.scale.reckoning import H100, reckoned, update_flops, update_seconds
from learner.spec import Ranks

DOGS: dict[str, Any] = {"observation_size": 223, "action_size": 38, "num_tasks": 4}


def ways(width: int, ranks: int, batch_size: int = 1024, replicas: int = 1, **changes: Any) -> dict[str, float]:
    config = LearnerConfig(width=width, batch_size=batch_size, precision="bf16")
    spec = NetworkSpec(width=width, **DOGS | changes)
    return {str(way): s for way, s in reckoned(spec, config, Ranks(0, ranks, replicas=replicas), "cuda").items()}


def test_an_update_of_the_paper_has_the_operations_of_its_products() -> None:
    critic, policy = update_flops(NetworkSpec(width=4096, **DOGS), LearnerConfig())
    assert critic == pytest.approx(1.69e12, rel=0.01)
    assert policy < critic / 100


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_wide_critic_is_divided_among_ranks_and_becomes_faster(ranks: int) -> None:
    alone = update_seconds(NetworkSpec(width=4096, **DOGS), LearnerConfig(precision="bf16"), Ranks(), H100)
    found = ways(4096, ranks)
    assert next(iter(found)) == "tensor"
    assert found["tensor"] < alone / 1.8
    assert found["replicate"] > 0.95 * alone  # the average of gradients costs what smaller batches save


def test_a_narrow_critic_and_a_large_batch_are_divided_by_rows() -> None:
    assert next(iter(ways(512, 8))) == "replicate"
    assert next(iter(ways(4096, 8, batch_size=65536))) in ("replicate", "shard")


def test_ways_that_are_impossible_are_left_out() -> None:
    assert set(ways(4098, 8)) == {"replicate", "shard"}  # four ranks cannot divide the columns of a head
    assert set(ways(4098, 4)) == {"replicate", "shard", "tensor"}
    assert set(ways(4096, 8, replicas=2)) == {"shard", "tensor"}
    discrete: dict[str, Any] = {"num_actions": (18,) * 4, "action_size": 1, "agent": "discrete-brc"}
    assert set(ways(4096, 8, **discrete)) == {"replicate"}


def test_ranks_that_divide_a_critic_divide_its_memory() -> None:
    spec = NetworkSpec(width=11264, **DOGS)
    whole = footprint(spec, 1024, 4, "bf16", 1, "replicate", 1, "cuda")
    part = footprint(spec, 1024, 4, "bf16", 8, "tensor", 1, "cuda")
    for purpose in ("critic", "target", "critic_moments", "critic_gradients", "rounded"):
        assert part[purpose] == pytest.approx(whole[purpose] / 8, rel=1e-6)
    assert part["activations"] >= whole["activations"] / 2  # each rank has all rows of its head


def test_a_gpu_writes_no_checkpoint_from_a_copy_of_its_own() -> None:
    spec = NetworkSpec(width=64, **DOGS)
    assert "checkpoint" in footprint(spec, 64, 4, "float32", 1, "replicate", 1, "cpu")
    assert "checkpoint" not in footprint(spec, 64, 4, "bf16", 1, "replicate", 1, "cuda")


def test_rows_belong_to_copies_of_a_divided_critic() -> None:
    ranks = [replace(Ranks(count=8, sharding="tensor", replicas=2), rank=rank) for rank in range(8)]
    assert [one.rows(64) for one in ranks] == [slice(0, 32)] * 4 + [slice(32, 64)] * 4
    assert [Ranks(rank, 4).rows(64) for rank in range(4)] == [slice(16 * rank, 16 * rank + 16) for rank in range(4)]
