"""The agent for discrete actions: its update, its acting, its checkpoints and its replay of stacked frames."""

from __future__ import annotations

import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.benchmarks.atari import HUMAN, configured, human_normalized
from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import resolve, suites
from actors.environments import Step
from actors.policies.greedy import GreedyPolicy
from actors.segments import SegmentBuilder
from cluster.config.schema import AtariConfig
from learner.agents import discrete
from learner.agents.acting import Epsilon
from learner.agents.catalogue import acting
from learner.agents.discrete import DiscreteState
from learner.agents.interface import Batch
from learner.agents.losses import Categorical
from learner.config import LearnerConfig
from learner.learner import Learner
from learner.networks.spec import NetworkSpec
from learner.scale.memory import critic_parameters
from learner.spec import MEAN, RANDOM, Origin
from learner.state import dcp
from learner.state.publishing import Outgoing
from learner.state.transfer import begin_from
from replay.store.rows import Push
from replay.store.storage import Storage, StorageSpec, new_state
from tests.support.specs import learner_spec
from tests.unit.test_learner import save

FLAT = NetworkSpec(
    observation_size=5, action_size=1, num_tasks=3, width=16, depth=1, num_bins=11, num_actions=(2, 4, 3)
)
IMAGES = NetworkSpec(
    observation_size=3 * 12 * 10,
    action_size=1,
    num_tasks=2,
    width=16,
    depth=1,
    num_bins=11,
    num_actions=(4, 4),
    image=(3, 12, 10),
)


def batch(spec: NetworkSpec, rows: int = 32, seed: int = 0) -> Batch:
    """Return random rows. Observations are float64, of images uint8. Every action exists in the task of its row."""
    generator = torch.Generator().manual_seed(seed)

    def observations() -> torch.Tensor:
        if spec.image:
            return torch.randint(0, 256, (rows, *spec.image), generator=generator, dtype=torch.uint8)
        return torch.randn(rows, spec.observation_size, generator=generator, dtype=torch.float64)

    tasks = torch.randint(0, spec.num_tasks, (rows,), generator=generator)
    actions = torch.rand(rows, generator=generator) * torch.tensor(spec.num_actions)[tasks]
    return Batch(
        observations(),
        actions.floor().double()[:, None],
        torch.randn(rows, generator=generator, dtype=torch.float64),
        (torch.rand(rows, generator=generator) < 0.8).double(),
        observations(),
        tasks,
    )


def made(spec: NetworkSpec, dtype: torch.dtype = torch.float64, **changes: Any) -> DiscreteState:
    torch.manual_seed(1)
    state = discrete.initial_state(spec, LearnerConfig(**changes), dtype)
    with torch.no_grad():  # the target differs from the critic, as after a few updates
        for parameter in state.target.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return state


@pytest.mark.parametrize("spec", [FLAT, IMAGES], ids=["flat", "images"])
def test_the_target_is_that_of_a_loop_over_rows_and_atoms(spec: NetworkSpec) -> None:
    """The expected target is computed by its definition: the online critic chooses the best available action, the
    distributions of the target's heads are averaged, and every atom's mass is divided between its two neighbours."""
    state, rows = made(spec), batch(spec)
    config = LearnerConfig()
    following = discrete.floats(rows.next_observations, torch.float64)
    found = discrete.bellman_target(state, rows, following, config)
    atoms = np.linspace(-config.value_limit, config.value_limit, spec.num_bins)
    with torch.no_grad():
        online, slow = (
            torch.softmax(net(following, rows.task_ids), -1).numpy() for net in (state.critic, state.target)
        )
    for row in range(len(found)):
        count = spec.num_actions[int(rows.task_ids[row])]
        best = int(np.argmax([(online[:, row, action] @ atoms).mean() for action in range(count)]))
        expected = np.zeros(spec.num_bins)
        for atom, mass in zip(atoms, slow[:, row, best].mean(axis=0), strict=True):
            moved = float(rows.rewards[row]) + config.discount * float(rows.masks[row]) * atom
            place = (np.clip(moved, -config.value_limit, config.value_limit) - atoms[0]) / (atoms[1] - atoms[0])
            expected += mass * np.maximum(0.0, 1.0 - np.abs(place - np.arange(spec.num_bins)))
        np.testing.assert_allclose(found[row].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("spec", [FLAT, IMAGES], ids=["flat", "images"])
def test_an_update_descends_the_cross_entropy_of_the_action_taken(spec: NetworkSpec) -> None:
    """The gradient equals the gradient of the loss, written out for the taken actions alone. The target moves by
    polyak."""
    state, rows, config = made(spec), batch(spec), LearnerConfig(weight_decay=0.0)
    target = discrete.bellman_target(state, rows, discrete.floats(rows.next_observations, torch.float64), config)
    logits = state.critic(discrete.floats(rows.observations, torch.float64), rows.task_ids)
    losses = [
        -(target[row] * torch.log_softmax(logits[head, row, int(rows.actions[row, 0])], -1)).sum()
        for head in range(spec.heads)
        for row in range(len(target))
    ]
    loss = torch.stack(losses).sum() / len(target)
    leaves = state.critic_optimizer.flat.leaves
    gradients = torch.autograd.grad(loss, leaves)
    before = {name: parameter.detach().clone() for name, parameter in state.target.named_parameters()}
    metrics = discrete.update(state, rows, torch.empty(0), config, diagnostics=True)
    torch.testing.assert_close(metrics["critic_loss"], loss.detach(), atol=1e-12, rtol=0)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        torch.testing.assert_close(leaf.grad, gradient, atol=1e-10, rtol=0)
    for name, parameter in state.critic.named_parameters():
        expected = before[name] + config.polyak * (parameter.detach() - before[name])
        torch.testing.assert_close(dict(state.target.named_parameters())[name].detach(), expected, atol=1e-12, rtol=0)
    assert set(metrics) == {
        "critic_loss",
        "q_mean",
        "target_mean",
        "critic_gradient_norm",
        "critic_parameter_norm",
    }


@pytest.mark.parametrize("spec", [FLAT, IMAGES, replace(FLAT, num_tasks=1, num_actions=(4,))])
def test_its_parameters_are_as_many_as_reckoned(spec: NetworkSpec) -> None:
    assert sum(p.numel() for p in made(spec).critic.parameters()) == critic_parameters(spec)


@pytest.mark.parametrize("spec", [FLAT, IMAGES], ids=["flat", "images"])
def test_what_acts_is_the_critic(spec: NetworkSpec) -> None:
    """Actors compute the same values as the learner, and never take an action that a task does not have."""
    state = made(spec, torch.float32)
    rows = batch(spec, 64)
    message = Outgoing(state.critic, state.critic.embedding_table(), 7).message()
    tasks = rows.task_ids.numpy()
    policy = GreedyPolicy(acting(spec), message, tasks)
    observations = rows.observations if spec.image else rows.observations.float()
    with torch.no_grad():
        logits = state.critic(discrete.floats(observations, torch.float32), rows.task_ids)
        expected = discrete.action_values(state.critic, Categorical(1.0).values(logits), rows.task_ids)
    np.testing.assert_allclose(policy.values(observations.numpy()), expected.numpy(), atol=2e-5)
    actions = policy.act(observations.numpy())
    assert actions.shape == (64, 1) and (actions[:, 0] < np.array(spec.num_actions)[tasks]).all()


def test_exploration_falls_linearly_with_updates_and_stays() -> None:
    epsilon = Epsilon(0.1, 100)
    assert [epsilon.at(version) for version in (0, 50, 100, 10_000)] == pytest.approx([1.0, 0.55, 0.1, 0.1])


def test_a_saved_learner_goes_on_and_gives_its_policy(tmp_path: Path) -> None:
    learner = Learner(learner_spec(FLAT, batches_per_request=2))
    save(learner, tmp_path)
    other = Learner(replace(learner_spec(FLAT, batches_per_request=2), seed=5))
    dcp.load(other, str(tmp_path))
    for name, module in learner.state.modules().items():
        for one, two in zip(module.parameters(), other.state.modules()[name].parameters(), strict=True):
            assert torch.equal(one, two)
    ours, theirs = dcp.load_policy(FLAT, str(tmp_path)), learner.policy()
    assert ours.layout == theirs.layout
    np.testing.assert_array_equal(ours.parameters, theirs.parameters)


def test_what_was_learned_goes_on_with_more_tasks_and_actions(tmp_path: Path) -> None:
    learner = Learner(learner_spec(FLAT, batches_per_request=2))
    save(learner, tmp_path)
    wider = replace(FLAT, observation_size=7, num_tasks=4, num_actions=(4, 2, 6, 3))
    grown = Learner(learner_spec(wider, batches_per_request=2))
    begin_from(grown, Origin(str(tmp_path), FLAT, (1, MEAN, RANDOM, 2), (1, RANDOM, RANDOM, 2)))
    observations = torch.randn(6, 5)
    wide = torch.cat([observations, torch.zeros(6, 2)], dim=1)
    for name, module in learner.state.modules().items():
        for before, after in ((1, 0), (2, 3)):
            theirs = module(observations, torch.full((6,), before))
            ours = grown.state.modules()[name](wide, torch.full((6,), after))
            torch.testing.assert_close(ours[:, :, :4], theirs, atol=1e-5, rtol=1e-5)


def test_a_task_without_any_return_learns_from_rewards_of_zero() -> None:
    """A task without a return has no scale: 0 / 0 must not reach the losses."""
    learner = Learner(learner_spec(FLAT, batches_per_request=2))
    learner.normalizer.merge(torch.tensor([0.0, -2.0, torch.inf]), torch.tensor([0.0, 4.0, -torch.inf]))
    scale = learner.normalizer.denominator(learner.state.temperature())
    assert scale.tolist() == pytest.approx([np.inf, 0.4, np.inf])


GAME = Task(
    name="atari/small",
    observation_keys=(("", 3 * 2 * 2),),
    action_size=1,
    episode_limit=1000,
    library_id="",
    num_actions=4,
    image=(3, 2, 2),
)


@settings(max_examples=60)
@given(
    length=st.integers(1, 5),
    ends=st.lists(st.sampled_from(["", "", "", "terminated", "truncated"]), min_size=1, max_size=25),
    n_step=st.integers(1, 3),
)
def test_replay_gives_back_the_stacks_that_were_acted_on(length: int, ends: list[str], n_step: int) -> None:
    """Every frame is stored once. However episodes end, every sampled stack is a stack that the environment showed."""
    stack, counter = 3, 0
    builder = SegmentBuilder(1, GAME, 1, length)
    spec = StorageSpec(
        tasks=("small",),
        observation_shapes=((2, 2),),
        action_size=1,
        capacity=(500,),
        segment_length=length,
        push_rows=2 * length + stack,
        dtype="uint8",
        stack=stack,
        n_step=n_step,
        discount=0.5,
    )
    storage = Storage(spec, np.zeros(spec.nbytes, np.uint8), new_state(spec), 0)

    def frame() -> np.ndarray:
        nonlocal counter
        counter += 1
        return np.full((2, 2), counter, np.uint8)

    inputs = np.repeat(frame()[None], stack, axis=0)[None]
    shown = {int(inputs[0, -1, 0, 0]): inputs[0].copy()}
    over: dict[int, str] = {}  # how the step ended, by the newest frame of its next observation
    for end in ends:
        observed = np.concatenate([inputs[:, 1:], frame()[None, None]], axis=1)
        shown[int(observed[0, -1, 0, 0])] = observed[0].copy()
        over[int(observed[0, -1, 0, 0])] = end
        following = np.repeat(frame()[None], stack, axis=0)[None] if end else observed
        terminated, truncated = (np.array([end == kind]) for kind in ("terminated", "truncated"))
        step = Step(observed, np.ones(1, np.float32), terminated, truncated, np.zeros(1, bool), following)
        builder.append(inputs, np.zeros((1, 1), np.float32), step)
        if end:
            shown[int(following[0, -1, 0, 0])] = following[0].copy()
        inputs = following
        if builder.full:
            store(storage, builder, inputs)
    if builder.steps:
        store(storage, builder, inputs)
    assert storage.transitions == [len(ends)]
    found = storage.sample(4, 16, threading.Lock())
    for observations in (found.observations, found.next_observations):
        for one in observations.reshape(-1, stack, 2, 2):
            np.testing.assert_array_equal(one, shown[int(one[-1, 0, 0])])
    newest, later = (
        array[..., -1, 0, 0].ravel().astype(int) for array in (found.observations, found.next_observations)
    )
    for before, after, mask in zip(newest, later, found.masks.ravel(), strict=True):
        steps = after - before
        assert 1 <= steps <= n_step
        assert mask == pytest.approx(0.0 if over[after] == "terminated" else 0.5 ** (steps - 1))


def store(storage: Storage, builder: SegmentBuilder, inputs: np.ndarray) -> None:
    rows = builder.take(inputs)
    storage.check(0, rows)
    storage.append(Push({0: rows}, {}))


def test_games_are_played_as_configured() -> None:
    (pong,) = resolve(["atari/pong"])
    assert (pong.num_actions, pong.image, pong.episode_limit) == (18, (4, 84, 84), 27_000)
    other = configured(pong, **(asdict(AtariConfig()) | {"frame_skip": 2, "stack": 3, "full_actions": False}))
    assert (other.num_actions, other.image, other.episode_limit) == (6, (3, 84, 84), 54_000)
    assert dict(other.options)["full_action_space"] is False and other.observation_size == 3 * 84 * 84
    assert (len(suites()["atari-26"]), len(suites()["atari-57"]), len(HUMAN)) == (26, 57, 57)
    assert human_normalized(pong, -20.7) == 0.0 and human_normalized(pong, 14.6) == pytest.approx(1.0)
