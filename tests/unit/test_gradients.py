"""The learner takes a function that computes gradients from the losses of rows: the mean, or gradient surgery."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from learner.agents import gradients
from learner.agents.gradients import Combine
from learner.learner import Learner
from learner.networks.spec import NetworkSpec
from replay.store.rows import Batches
from tests.support.specs import learner_spec

NETWORKS = NetworkSpec(observation_size=5, action_size=2, num_tasks=3, width=16, policy_width=16)
ROWS = 24


def surgery(rows: Tensor, task_ids: Tensor, leaves: list[Tensor]) -> Tensor:
    """PCGrad (arXiv 2001.06782): remove from a task's gradient its component against another task's gradient."""
    losses = [rows[:, task_ids == task].sum() / len(task_ids) for task in task_ids.unique()]
    found = [torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True) for loss in losses]
    plain = [torch.cat([part.flatten() for part in task]) for task in found]
    cut = [task.clone() for task in plain]
    for one, other in permutations(range(len(plain)), 2):
        against = torch.dot(cut[one], plain[other]).clamp(max=0.0)
        cut[one] -= against / plain[other].square().sum() * plain[other]
    sizes = [leaf.numel() for leaf in leaves]
    for leaf, part in zip(leaves, torch.stack(cut).sum(dim=0).split(sizes), strict=True):
        leaf.grad = part.view_as(leaf).clone()
    return torch.stack(losses).sum().detach()


def without_surgery(rows: Tensor, task_ids: Tensor, leaves: list[Tensor]) -> Tensor:
    """Set the sum of the tasks' gradients, each computed separately."""
    losses = [rows[:, task_ids == task].sum() / len(task_ids) for task in task_ids.unique()]
    for loss in losses:
        loss.backward(retain_graph=True)
    return torch.stack(losses).sum().detach()


def trained(combine: Combine) -> Learner:
    """Return a learner after four updates in float64."""
    spec = learner_spec(NETWORKS, batch_size=ROWS, precision="float64", observation_dtype="float64")
    learner, rng = Learner(spec, combine=combine), np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((4, ROWS, *shape))

    tasks = rng.integers(0, 3, (4, ROWS))
    batches = Batches(
        normal(5),
        np.tanh(normal(2)),
        3.0 * (tasks - 1.0),  # every task has other returns, so that the tasks' gradients conflict
        np.zeros((4, ROWS)),
        normal(5),
        tasks,
        np.full(3, -3.0, np.float32),
        np.full(3, 3.0, np.float32),
    )
    learner.train(batches).finish()
    return learner


def parameters(learner: Learner) -> Tensor:
    return torch.cat([p.detach().flatten() for p in learner.state.modules()["critic"].parameters()])


def test_tasks_whose_gradients_are_added_learn_as_by_the_mean() -> None:
    torch.testing.assert_close(
        parameters(trained(without_surgery)), parameters(trained(gradients.mean)), rtol=0, atol=1e-8
    )


def test_surgery_changes_what_is_learned() -> None:
    mean, cut = parameters(trained(gradients.mean)), parameters(trained(surgery))
    assert torch.isfinite(cut).all() and (mean - cut).abs().max() > 1e-6
