"""Parity with the JAX reference: float64 to 1e-9, float32 to the tolerances in golden/README.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from learner.agents import brc, categorical, tanh_normal
from learner.networks.modules import Critic, Policy
from tests.support import golden_vectors as golden

# dtype, file suffix, absolute tolerance; for float32, the tolerance that an independent implementation reached
PROJECTION_CASES = [(torch.float64, "f64", 1e-9), (torch.float32, "f32", 7.7e-6)]
DENSITY_CASES = [(torch.float64, "f64", 1e-9), (torch.float32, "f32", 1.2e-5)]


@pytest.fixture(autouse=True)
def on_a_gpu_if_there_is_one() -> Iterator[None]:
    with torch.device(golden.DEVICE):
        yield


@pytest.mark.parametrize(("name", "tasks"), [("multi", 3), ("single", 1)])
def test_forward(name: str, tasks: int) -> None:
    arrays = golden.load(f"a_forward_{name}_f32", torch.float32)
    critic, policy = Critic(golden.spec(tasks)), Policy(golden.spec(tasks))
    golden.set_critic(critic, arrays, "critic/")
    golden.set_policy(policy, arrays, "actor/")
    batch = golden.batch(arrays, "in/")
    embedding = critic.embed(batch.task_ids)
    if tasks > 1:
        torch.testing.assert_close(critic.embedding_table(), arrays["out/embeddings"], atol=3.4e-6, rtol=0)
    mean, log_std = policy(batch.observations, embedding)
    torch.testing.assert_close(mean, arrays["out/mean"], atol=3.4e-6, rtol=0)
    torch.testing.assert_close(log_std, arrays["out/log_std"], atol=3.4e-6, rtol=0)
    logits = critic(batch.observations, batch.actions, embedding)
    torch.testing.assert_close(logits, arrays["out/q_logits"], atol=3.4e-6, rtol=0)


@pytest.mark.parametrize("case", ["random", "clip", "exact", "identity", "onehot", "shift_one_bin"])
@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), PROJECTION_CASES)
def test_projection(case: str, dtype: torch.dtype, suffix: str, tolerance: float) -> None:
    arrays = golden.load(f"b_projection_{suffix}", dtype)
    at = {key.split("/")[1]: value for key, value in arrays.items() if key.startswith(case + "/")}
    probabilities = torch.softmax(at["next_q_logits"], -1).mean(0)
    torch.testing.assert_close(probabilities, at["next_q_probs"], atol=tolerance, rtol=0)
    atoms = categorical.support(101, 10.0, probabilities)
    shifted = atoms - (at["temperature"] * at["next_log_probs"]).unsqueeze(-1)
    targets = at["rewards"].unsqueeze(-1) + at["discount"] * at["masks"].unsqueeze(-1) * shifted
    projected = categorical.project(at["next_q_probs"], targets, 10.0)
    torch.testing.assert_close(projected, at["target_probs"], atol=tolerance, rtol=0)
    value = (at["target_probs"] @ atoms).mean()
    torch.testing.assert_close(value, at["q_mean"], atol=max(tolerance, 1e-5 if suffix == "f32" else 0), rtol=0)


@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), DENSITY_CASES)
def test_tanh_normal(dtype: torch.dtype, suffix: str, tolerance: float) -> None:
    arrays = golden.load(f"c_tanh_normal_{suffix}", dtype)
    actions, log_probs = tanh_normal.sample(arrays["mean"], arrays["log_std"], arrays["noise"])
    torch.testing.assert_close(actions, arrays["actions"], atol=tolerance, rtol=0)
    torch.testing.assert_close(log_probs, arrays["log_probs"], atol=tolerance, rtol=tolerance / 10)


@pytest.mark.parametrize(("name", "tasks"), [("multi", 3), ("single", 1)])
def test_losses_and_gradients(name: str, tasks: int) -> None:
    arrays = golden.load(f"d_losses_{name}_f32", torch.float32)
    state = golden.state(arrays, tasks, torch.float32)
    batch = golden.batch(arrays, "in/")
    temperature = state.log_temperature.detach().exp()
    embedding = state.critic.embed(batch.task_ids)
    with torch.no_grad():
        drawn = brc.next_action(state, batch, arrays["noise_next"], embedding)
        target = brc.bellman_target(state, batch, *drawn, temperature, golden.SETTINGS)
    torch.testing.assert_close(target, arrays["out/target_probs"], atol=7.7e-6, rtol=0)
    logits = state.critic(batch.observations, batch.actions, embedding)
    loss = categorical.cross_entropy(logits, target).mean(-1).sum()
    torch.testing.assert_close(loss, arrays["out/critic_loss"], atol=1e-5, rtol=4e-6)
    loss.backward()
    expected = Critic(golden.spec(tasks))
    golden.set_critic(expected, arrays, "grad_critic/")
    for (key, parameter), gradient in zip(state.critic.named_parameters(), expected.parameters(), strict=True):
        found = golden.gradient(state.critic_optimizer, parameter)
        assert found is not None, key
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found, gradient.data, atol=4e-6 * max(scale, 1.0), rtol=4e-6, msg=key)

    frozen = None if embedding is None else embedding.detach()
    mean, log_std = state.policy(batch.observations, frozen)
    actions, log_probs = tanh_normal.sample(mean, log_std, arrays["noise_cur"])
    # These are sums near 30: processors with other kernels differ by eight units in the last place.
    torch.testing.assert_close(log_probs, arrays["out/log_probs"], atol=1.2e-5, rtol=1e-6)
    value, action_gradient = brc.value_and_action_gradient(state, batch.observations, actions, frozen, golden.SETTINGS)
    torch.autograd.backward([temperature * log_probs.mean(), actions], [None, -action_gradient])
    actor_loss = temperature * log_probs.detach().mean() - value
    torch.testing.assert_close(actor_loss, arrays["out/actor_loss"], atol=1e-5, rtol=0)
    expected_policy = Policy(golden.spec(tasks))
    golden.set_policy(expected_policy, arrays, "grad_actor/")
    for (key, weight), reference in zip(state.policy.named_parameters(), expected_policy.parameters(), strict=True):
        scale = reference.abs().max().item()
        found = golden.gradient(state.policy_optimizer, weight)
        torch.testing.assert_close(found, reference.data, atol=4e-6 * max(scale, 1.0), rtol=4e-6, msg=key)


def test_five_updates_in_float64() -> None:
    arrays = golden.load("e_update_multi_f64", torch.float64)
    state = golden.state(arrays, 3, torch.float64, "step0/")
    for index in range(5):
        batch = golden.batch(arrays, f"batch{index}/")
        noise = torch.stack([arrays[f"noise_next{index}"], arrays[f"noise_cur{index}"]])
        metrics = brc.update(state, batch, noise, golden.SETTINGS, diagnostics=True)
        for ours, theirs in {
            "critic_loss": "critic_loss",
            "policy_loss": "actor_loss",
            "entropy": "entropy",
            "target_mean": "q_mean",
            "critic_gradient_norm": "critic_gnorm",
            "policy_gradient_norm": "actor_gnorm",
        }.items():
            torch.testing.assert_close(metrics[ours], arrays[f"info{index}/{theirs}"], atol=1e-9, rtol=1e-9)
        if index + 1 in (1, 5):
            expected = golden.state(arrays, 3, torch.float64, f"step{index + 1}/")
            for part in ("critic", "target", "policy"):
                named = getattr(state, part).named_parameters()
                for (key, ours_), theirs_ in zip(named, getattr(expected, part).parameters(), strict=True):
                    torch.testing.assert_close(
                        ours_, theirs_, atol=1e-9, rtol=0, msg=f"{part} {key}", check_stride=False
                    )
            torch.testing.assert_close(state.log_temperature, expected.log_temperature, atol=1e-9, rtol=0)


def test_three_updates_of_the_squared_error_in_float64() -> None:
    """The squared error is BRO's loss; the networks are BRC's."""
    arrays, settings = golden.load("g_mse_multi_f64", torch.float64), replace(golden.SETTINGS, loss="mse")
    state = golden.state(arrays, 3, torch.float64, "step0/", num_bins=1)
    batch, noise = golden.batch(arrays, "batch0/"), arrays["noise_next0"]
    embedding = state.critic.embed(batch.task_ids)
    drawn = brc.next_action(state, batch, noise, embedding)
    target = brc.bellman_target(state, batch, *drawn, state.temperature(), settings)
    torch.testing.assert_close(target[:, 0], arrays["out/target_mean"], atol=1e-9, rtol=1e-9)
    for index in range(3):
        batch = golden.batch(arrays, f"batch{index}/")
        noises = torch.stack([arrays[f"noise_next{index}"], arrays[f"noise_cur{index}"]])
        metrics = brc.update(state, batch, noises, settings)
        for ours, theirs in (("critic_loss", "critic_loss"), ("policy_loss", "actor_loss"), ("entropy", "entropy")):
            torch.testing.assert_close(metrics[ours], arrays[f"info{index}/{theirs}"], atol=1e-9, rtol=1e-9)
    expected = golden.state(arrays, 3, torch.float64, "step3/", num_bins=1)
    for part in ("critic", "target", "policy"):
        for ours_, theirs_ in zip(getattr(state, part).parameters(), getattr(expected, part).parameters(), strict=True):
            torch.testing.assert_close(ours_, theirs_, atol=1e-9, rtol=0, msg=part)
    torch.testing.assert_close(state.log_temperature, expected.log_temperature, atol=1e-9, rtol=0)
