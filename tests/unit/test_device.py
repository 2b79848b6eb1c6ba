"""Tests of learners on a GPU if there is one, else on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.learner import Learner
from learner.networks.spec import NetworkSpec
from learner.scale.precision import Precision
from learner.spec import LearnerSpec
from learner.state import dcp
from replay.store.rows import Batches
from tests.support import golden_vectors as golden
from tests.support.specs import learner_spec

DISCRETE: dict[str, Any] = {"action_size": 1, "num_actions": (3, 2, 3), "agent": "discrete-brc"}


def spec(**changes: Any) -> LearnerSpec:
    networks = NetworkSpec(observation_size=5, action_size=2, num_tasks=3, width=16, policy_width=16)
    values: dict[str, Any] = {"networks": networks, "batch_size": 8, "seed": 1, "device": golden.DEVICE}
    return learner_spec(**(values | changes))


def batches(seed: int, discrete: bool = False, count: int = 3) -> Batches:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((count, 8, *shape)).astype(np.float32)

    actions = rng.integers(0, 2, (count, 8, 1)).astype(np.float32) if discrete else np.tanh(normal(2))
    return Batches(
        normal(5),
        actions,
        normal(),
        (rng.random((count, 8)) < 0.9).astype(np.float32),
        normal(5),
        rng.integers(0, 3, (count, 8)),
        np.array([-3.0, -1.0, np.inf], np.float32),
        np.array([5.0, 1.0, -np.inf], np.float32),
    )


def values(learner: Learner) -> list[torch.Tensor]:
    return [tensor for module in learner.state.modules().values() for tensor in module.state_dict().values()]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("tf32", 1e-3), ("bf16", 3e-3)])
def test_recorded_updates_are_the_updates(precision: Precision, tolerance: float) -> None:
    """The recording is replayed from the fourth update on, also where diagnostics are not asked for."""
    eager, recorded = (Learner(spec(precision=precision, record=on)) for on in (False, True))
    for step in range(12):
        for learner in (eager, recorded):
            learner.train(batches(step, count=4 - step % 5 // 4), diagnostics=step == 8).finish()
    assert recorded.recorded[True].graph is not None
    assert torch.equal(eager.generator.get_state(), recorded.generator.get_state())
    for one, other in zip(values(eager), values(recorded), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("triton", [True, False])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_updates_without_noise_are_those_of_a_cpu(precision: Precision, triton: bool) -> None:
    """A discrete agent draws no noise. Both learners begin with the same parameters."""
    shape = NetworkSpec(observation_size=5, num_tasks=3, width=16, **DISCRETE)
    found = spec(networks=shape, precision=precision, triton=triton)
    ours, theirs = Learner(found), Learner(replace(found, config=replace(found.config, device="cpu")))
    for name, module in ours.state.modules().items():
        module.load_state_dict(theirs.state.modules()[name].state_dict())
    ours.refresh()
    for step in range(4):
        for learner in (ours, theirs):
            metrics = learner.train(batches(step, discrete=True), diagnostics=True).finish()
            assert metrics["critic_gradient_norm"] > 0
    for one, other in zip(values(ours), values(theirs), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=1e-10 if precision == "float64" else 1e-5)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path, precision: Precision) -> None:
    whole, first = Learner(spec(precision=precision)), Learner(spec(precision=precision))
    for step in range(8):
        whole.train(batches(step)).finish()
    for step in range(5):
        first.train(batches(step)).finish()
    dcp.save_counters(first, str(tmp_path))
    dcp.save(first, str(tmp_path)).result()
    second = Learner(spec(precision=precision, seed=9))
    dcp.load(second, str(tmp_path))
    for step in range(5, 8):
        second.train(batches(step)).finish()
    assert torch.equal(whole.generator.get_state(), second.generator.get_state())
    for one, other in zip(values(whole), values(second), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0 if golden.DEVICE == "cpu" else 1e-5)


def test_a_checkpoint_goes_on_on_another_device(tmp_path: Path) -> None:
    first = Learner(spec())
    first.train(batches(0)).finish()
    dcp.save_counters(first, str(tmp_path))
    dcp.save(first, str(tmp_path)).result()
    second = Learner(spec(device="cpu", seed=9))
    dcp.load(second, str(tmp_path))
    for one, other in zip(values(first), values(second), strict=True):
        assert torch.equal(one.cpu(), other)
    assert np.isfinite(second.train(batches(1)).finish()["critic_loss"])
