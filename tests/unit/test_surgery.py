"""Gradient surgery and measures of conflict, by the gradients of tasks and by their inner products alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.agents import brc
from learner.agents.brc import BRCState, initial_state
from learner.agents.interface import Batch
from learner.agents.surgery import conflict, pcgrad
from learner.agents.task_gradients import by_tasks, shares
from learner.config import LearnerConfig
from learner.learner import Learner
from learner.networks.spec import NetworkSpec, network_spec
from replay.store.rows import Batches
from tests.support import golden_critics as golden
from tests.support.specs import learner_spec

TASKS, ROWS = 3, 24
SIZES = {"observation_size": 5, "action_size": 2, "num_tasks": TASKS}
SMALL = replace(LearnerConfig(), width=16, policy_width=12, embedding_size=4, num_bins=11)
GOLDEN = sorted({key.split("/")[0] for key in golden.load("pcgrad_f64")})


@pytest.mark.parametrize("case", GOLDEN)
@pytest.mark.parametrize("order", ["common", "per_task"])
def test_pcgrad_from_the_gram_matrix_is_that_of_gradients(case: str, order: str) -> None:
    arrays = golden.load("pcgrad_f64")
    gradients, orders = arrays[f"{case}/grads"], arrays[f"{case}/order_{order}"].long()
    epsilon = {"common": 1e-8, "per_task": 0.0}[order]  # two references
    weights = pcgrad(gradients @ gradients.T, orders.expand(len(gradients), -1), epsilon)
    torch.testing.assert_close(weights @ gradients, arrays[f"{case}/out_{order}_mean"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", GOLDEN)
def test_conflict_is_that_of_the_cosines_of_pairs(case: str) -> None:
    arrays = golden.load("pcgrad_f64")
    gradients = arrays[f"{case}/grads"]
    unit = (gradients / gradients.norm(dim=1, keepdim=True)).numpy()
    pairs = [float(unit[one] @ unit[other]) for one in range(len(unit)) for other in range(one + 1, len(unit))]
    found = conflict(gradients @ gradients.T)
    assert float(found["conflict_cosine"]) == pytest.approx(np.mean(pairs))
    assert float(found["conflict_cosine"]) == pytest.approx(float(arrays[f"{case}/avg_cosine_similarity"]), abs=1e-6)
    assert float(found["conflict_share"]) == pytest.approx(np.mean(np.array(pairs) < 0))


def test_tasks_without_rows_are_in_no_pair() -> None:
    gradients = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    assert float(conflict(gradients @ gradients.T)["conflict_share"]) == 1.0
    assert float(conflict(torch.zeros(2, 2))["conflict_share"]) == 0.0
    orders = torch.tensor([[0, 1, 2], [2, 1, 0], [1, 0, 2]])
    torch.testing.assert_close(pcgrad(gradients @ gradients.T, orders) @ gradients, torch.zeros(2))


def batch(seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(ROWS, *shape, generator=rng, dtype=torch.float64)

    tasks = torch.arange(ROWS) % TASKS
    rewards = normal() + 3.0 * (tasks - 1.0)  # tasks have other returns, so their gradients conflict
    return Batch(normal(5), torch.tanh(normal(2)), rewards, torch.ones(ROWS, dtype=torch.float64), normal(5), tasks)


def made(config: LearnerConfig) -> BRCState:
    torch.manual_seed(0)
    return initial_state(network_spec(config, **SIZES), config, torch.float64)


CASES: dict[str, dict[str, Any]] = {
    "bronet": {},
    "mlp": {"network": "mlp", "loss": "mse", "target": "min"},
    "simba": {"network": "simba", "heads_loss": "mean"},
    "simbav2": {"network": "simbav2"},
    "heads": {"conditioning": "heads"},
    "one-hot": {"conditioning": "one-hot"},
}


@pytest.mark.parametrize("embeddings", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_inner_products_from_rows_are_those_of_the_gradients(case: str, embeddings: bool) -> None:
    config = replace(SMALL, **CASES[case])
    state, rows = made(config), batch()
    noise = torch.randn(2, ROWS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    losses, target = brc.critic_losses(state, rows, noise[0], state.temperature(), config, "learned")
    of = shares(rows.task_ids, TASKS, torch.float64)
    leaves = [leaf for leaf in state.critic_optimizer.flat.leaves if embeddings or leaf is not state.table()]
    expected = by_tasks([losses], lambda weights: [weights.expand_as(losses)], of, leaves)
    found = brc.critic_gram(state, rows, losses, target, of, config, embeddings)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", [*CASES, "xqc", "flash"])
def test_surgery_of_one_task_alone_changes_nothing(case: str) -> None:
    """With the rows of a single task, the gradient of its mean loss is that of the mean over rows."""
    config = replace(SMALL, **CASES.get(case, {"network": case}))
    rows = batch()._replace(task_ids=torch.ones(ROWS, dtype=torch.int64))
    noise = torch.randn(2, ROWS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plain, cut = made(config), made(config)
    brc.update(plain, rows, noise, config)
    orders = torch.arange(TASKS).expand(2, TASKS, TASKS)
    brc.update(cut, rows, noise, replace(config, surgery="pcgrad"), orders=orders)
    # The mean over three tasks, of which two have no gradient. The policies' critics have taken different steps.
    for name, tolerance in (("critic", 1e-10), ("policy", 1e-4)):
        for one, other in zip(*(state.optimizers()[name].flat.leaves for state in (plain, cut)), strict=True):
            assert one.grad is not None and other.grad is not None
            torch.testing.assert_close(3.0 * other.grad, one.grad, rtol=tolerance, atol=tolerance)


def explicit(config: LearnerConfig, rows: Batch, noise: Tensor, orders: Tensor) -> Tensor:
    """Return the critic's gradient after PCGrad of stored gradients, one task after the other."""
    state = made(config)
    losses, _ = brc.critic_losses(state, rows, noise[0], state.temperature(), config, "learned")
    leaves = state.critic_optimizer.flat.leaves
    plain = []
    for task in range(TASKS):
        loss = losses[:, rows.task_ids == task].mean(dim=1).sum()
        parts = torch.autograd.grad(loss, leaves, retain_graph=True)
        plain.append(torch.cat([part.flatten() for part in parts]))
    cut = [gradient.clone() for gradient in plain]
    for task in range(TASKS):
        for other in orders[0, task].tolist():
            cut[task] -= (cut[task] @ plain[other]).clamp(max=0.0) / (plain[other] @ plain[other]) * plain[other]
    return torch.stack(cut).mean(dim=0)


@pytest.mark.parametrize("case", ["bronet", "simbav2", "xqc"])
def test_an_update_with_surgery_takes_the_gradient_of_stored_ones(case: str) -> None:
    config = replace(SMALL, surgery="pcgrad", **CASES.get(case, {"network": case}))
    rows, orders = batch(), torch.rand(2, TASKS, TASKS, generator=torch.Generator().manual_seed(2)).argsort(dim=-1)
    noise = torch.randn(2, ROWS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = explicit(config, rows, noise, orders)
    state = made(config)
    brc.critic_step(state, rows, noise[0], state.temperature(), config, False, orders)
    found = torch.cat([leaf.grad.flatten() for leaf in state.critic_optimizer.flat.leaves if leaf.grad is not None])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(found, explicit(replace(config), rows, noise, orders.flip(-1)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("discrete", [False, True])
def test_a_learner_trains_with_surgery_and_measures_conflict(discrete: bool) -> None:
    kinds: dict[str, Any] = {"action_size": 1, "num_actions": (2, 3, 2)} if discrete else {"action_size": 2}
    networks = NetworkSpec(observation_size=5, num_tasks=TASKS, width=16, policy_width=16, **kinds)
    spec = learner_spec(networks, batch_size=ROWS, surgery="pcgrad", conflict_interval=2)
    learner, rng = Learner(spec), np.random.default_rng(0)
    tasks = np.tile(np.arange(ROWS) % TASKS, (4, 1))
    batches = Batches(
        rng.standard_normal((4, ROWS, 5)).astype(np.float32),
        np.zeros((4, ROWS, kinds["action_size"]), np.float32),
        (3.0 * (tasks - 1.0)).astype(np.float32),
        np.ones((4, ROWS), np.float32),
        rng.standard_normal((4, ROWS, 5)).astype(np.float32),
        tasks,
        np.full(TASKS, -3.0, np.float32),
        np.full(TASKS, 3.0, np.float32),
    )
    metrics = learner.train(batches).finish()
    assert np.isfinite(metrics["critic_loss"])
    assert 0.0 <= metrics["conflict_share"] <= 1.0 and -1.0 <= metrics["conflict_cosine"] <= 1.0


def test_measuring_conflict_changes_nothing() -> None:
    config = replace(SMALL, network="xqc")
    state, rows = made(config), batch()
    before = [tensor.clone() for module in state.modules().values() for tensor in module.state_dict().values()]
    noise = torch.randn(2, ROWS, 2, dtype=torch.float64)
    brc.conflicts(state, rows, noise, state.temperature(), config)
    after = [tensor for module in state.modules().values() for tensor in module.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
