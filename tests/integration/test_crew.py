"""Tests of crews: several ranks make the same updates as one, and any number of ranks can load their checkpoints."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.learner import Learner
from learner.networks.architectures import ARCHITECTURES, Architecture
from learner.networks.description import TASK, Concat, Dense, LayerNorm, Layers, ReLU
from learner.networks.spec import NetworkSpec
from learner.scale import sharding
from learner.scale.crew import Crew
from learner.spec import LearnerSpec, Ranks
from learner.state import dcp
from replay.store.rows import Batches
from tests.support.specs import learner_spec

ROWS, REQUESTS, SAVED_AFTER = 16, 5, 3  # 4 updates a request


def joined(width: int, depth: int) -> Layers:
    """A trunk whose heads take the task once more in their midst: it is no single chain."""
    return (Dense("input", width), LayerNorm("norm"), ReLU(), Concat((TASK,)), Dense("behind", width), ReLU())


ARCHITECTURES["joined"] = Architecture(joined)  # in every rank, which import this module


def spec(changed: dict[str, Any] | None = None, **changes: Any) -> LearnerSpec:
    sizes: dict[str, Any] = {"observation_size": 7, "action_size": 3, "num_tasks": 3, "width": 48, "policy_width": 32}
    values: dict[str, Any] = {
        "networks": NetworkSpec(**sizes | (changed or {})),
        "batch_size": ROWS,
        "num_shards": 2,
        "seed": 5,
    }
    return learner_spec(**(values | changes))


def batches(request: int) -> Batches:
    rng = np.random.default_rng(request)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((4, ROWS, *shape)).astype(np.float32)

    return Batches(
        normal(7),
        np.tanh(normal(3)),
        normal(),
        (rng.random((4, ROWS)) < 0.9).astype(np.float32),
        normal(7),
        np.sort(rng.integers(0, 3, (4, ROWS))),
        np.full(3, -3.0 - request, np.float32),
        np.full(3, 5.0 + request, np.float32),
    )


def lead(crew: Crew, first: int, folder: Path) -> None:
    for request in range(first, REQUESTS):
        if request == SAVED_AFTER:
            crew.save(str(folder / "middle")).result()
        metrics = crew.train(batches(request), request % 2, diagnostics=True, between=lambda: None).finish()
    crew.save(str(folder / "end")).result()
    (folder / "metrics.json").write_text(json.dumps(metrics))


def member(
    rank: int,
    count: int,
    kind: str,
    replicas: int,
    port: int,
    precision: Any,
    first: str,
    device: str,
    networks: dict[str, Any],
    folder: Path,
) -> None:
    ranks = Ranks(rank, count, kind, replicas)  # type: ignore[arg-type]
    if device == "cuda":
        torch.cuda.set_device(rank)
    sharding.join(ranks, sharding.meet(ranks, "127.0.0.1", port), device, timeout_s=60)
    learner = Learner(spec(networks, precision=precision, device=device), ranks)
    if first:
        dcp.load(learner, first)
    crew = Crew(learner)
    if rank == 0:
        lead(crew, SAVED_AFTER if first else 0, folder)
        os._exit(0)  # a normal exit may abort: the process group still has threads
    else:
        with suppress(RuntimeError):  # rank 0 exits when it is done
            crew.follow()


def run(
    folder: Path,
    count: int,
    kind: str,
    replicas: int = 1,
    precision: str = "float32",
    first: str = "",
    device: str = "cpu",
    networks: dict[str, Any] | None = None,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    arguments = (count, kind, replicas, port, precision, first, device, networks or {}, folder)
    members = [context.Process(target=member, args=(rank, *arguments)) for rank in range(count)]
    for process in members:
        process.start()
    try:
        members[0].join(timeout=120)
        assert members[0].exitcode == 0
    finally:
        for process in members:
            process.join(timeout=20)
            process.kill()


def alone(precision: Any, first: str = "", networks: dict[str, Any] | None = None) -> tuple[Learner, dict[str, float]]:
    learner = Learner(spec(networks, precision=precision))
    if first:
        dcp.load(learner, first)
    for request in range(SAVED_AFTER if first else 0, REQUESTS):
        metrics = learner.train(batches(request), request % 2, diagnostics=True).finish()
    return learner, metrics


def loaded(url: Path, precision: Any, networks: dict[str, Any] | None = None) -> Learner:
    learner = Learner(spec(networks, precision=precision, seed=99))
    dcp.load(learner, str(url))
    return learner


def assert_close(one: Learner, other: Learner, tolerance: float) -> None:
    assert (one.updates, one.consumed) == (other.updates, other.consumed) == (20, [12, 8])
    ours, theirs = one.tensors(), other.tensors()
    assert ours.keys() == theirs.keys()
    for part in ("critic", "target", "policy", "temperature", "normalizer"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=tolerance)
    for part in ("critic_optimizer", "policy_optimizer", "temperature_optimizer"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=tolerance)
    assert torch.equal(one.generator.get_state(), other.generator.get_state())


@pytest.mark.parametrize(
    ("count", "kind", "replicas"),
    [
        (2, "replicate", 1),
        pytest.param(2, "shard", 1, marks=pytest.mark.long),
        pytest.param(4, "replicate", 1, marks=pytest.mark.long),
        pytest.param(4, "shard", 1, marks=pytest.mark.long),
        (4, "shard", 2),
        (2, "tensor", 1),
        (4, "tensor", 1),
        pytest.param(4, "tensor", 2, marks=pytest.mark.long),
    ],
)
def test_ranks_make_the_updates_of_one(tmp_path: Path, count: int, kind: str, replicas: int) -> None:
    run(tmp_path, count, kind, replicas)
    reference, metrics = alone("float32")
    moved = (
        reference.tensors()["critic"]["heads.0.input.weight"]
        - Learner(spec()).tensors()["critic"]["heads.0.input.weight"]
    )
    assert moved.abs().max() > 1e-3
    assert_close(loaded(tmp_path / "end", "float32"), reference, 1e-5)
    assert_close(alone("float32", str(tmp_path / "middle"))[0], reference, 1e-5)
    assert json.loads((tmp_path / "metrics.json").read_text()) == pytest.approx(metrics, rel=1e-3)


@pytest.mark.parametrize(
    ("count", "replicas", "networks"),
    [
        (2, 1, {"heads": 3, "normalize_observations": True}),  # both ranks divide the columns of every head
        (2, 1, {"network": "joined"}),
        pytest.param(4, 2, {"heads": 1}, marks=pytest.mark.long),
        pytest.param(4, 1, {"network": "joined", "num_bins": 64}, marks=pytest.mark.long),
    ],
)
def test_ranks_divide_any_ensemble(tmp_path: Path, count: int, replicas: int, networks: dict[str, Any]) -> None:
    run(tmp_path, count, "tensor", replicas, networks=networks)
    reference, metrics = alone("float32", networks=networks)
    assert_close(loaded(tmp_path / "end", "float32", networks), reference, 1e-5)
    assert json.loads((tmp_path / "metrics.json").read_text()) == pytest.approx(metrics, rel=1e-3)


@pytest.mark.parametrize(
    "network", ["xqc", "flash", *(pytest.param(name, marks=pytest.mark.long) for name in ("mlp", "simba", "simbav2"))]
)
def test_ranks_make_the_updates_of_one_with_every_network(tmp_path: Path, network: str) -> None:
    """Statistics of BatchNorm, and the gradients that flow through these, are those of one rank with all rows."""
    networks = {"network": network}
    run(tmp_path, 2, "replicate", precision="float64", networks=networks)
    reference, metrics = alone("float64", networks=networks)
    assert_close(loaded(tmp_path / "end", "float64", networks), reference, 1e-9)
    assert json.loads((tmp_path / "metrics.json").read_text()) == pytest.approx(metrics, rel=1e-3)


@pytest.mark.parametrize("kind", ["tensor", pytest.param("shard", marks=pytest.mark.long)])
def test_a_checkpoint_of_four_goes_on_at_two(tmp_path: Path, kind: str) -> None:
    run(tmp_path / "four", 4, kind, precision="float64")
    for other in ("shard", "tensor", "replicate"):
        run(tmp_path / other, 2, other, precision="float64", first=str(tmp_path / "four" / "middle"))
    reference, _ = alone("float64")
    for name in ("four", "shard", "tensor", "replicate"):
        assert_close(loaded(tmp_path / name / "end", "float64"), reference, 1e-10)


@pytest.mark.parametrize(("count", "kind"), [(2, "shard"), (4, "tensor")])
def test_bfloat16_over_ranks_is_near_bfloat16_alone(tmp_path: Path, count: int, kind: str) -> None:
    """Parameters are close to those of one rank, not equal: gathered LayerNorms, or summands of gradients, are rounded
    too."""
    run(tmp_path, count, kind, precision="bf16")
    ours, theirs = loaded(tmp_path / "end", "bf16").tensors(), alone("bf16")[0].tensors()
    for name, parameter in theirs["critic"].items():
        assert ours["critic"][name].dtype == torch.float32
        assert (ours["critic"][name] - parameter).abs().mean() < 1e-3, name


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a GPU for each of two ranks")
@pytest.mark.parametrize("kind", ["replicate", "tensor", "shard"])
def test_ranks_on_gpus_make_the_updates_of_one(tmp_path: Path, kind: str) -> None:
    run(tmp_path, 2, kind, device="cuda")
    assert json.loads((tmp_path / "metrics.json").read_text())["critic_loss"] > 0
    dcp.load(Learner(spec(device="cuda")), str(tmp_path / "end"))
