"""Parity of other critics and their agents with their authors' code (tests/golden/critics/README.md)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from learner.agents import brc, categorical
from learner.networks.description import OBSERVATION, TASK, Concat, Dense, Network, OwnTask, ReLU
from learner.networks.layers import Statistics
from learner.networks.modules import Critic, Policy, use_statistics
from learner.networks.spec import network_spec
from learner.networks.torch_network import TorchNetwork
from learner.scale.precision import made_in
from tests.support import golden_critics as golden
from tests.support.golden_vectors import batch, gradient


@pytest.mark.parametrize("name", golden.SETTINGS)
def test_updates_in_float64(name: str) -> None:
    arrays, config = golden.load(name), golden.SETTINGS[name]
    state = golden.state(arrays, "step0/", config)
    for index in range(sum(key.startswith("batch") and key.endswith("/rewards") for key in arrays)):
        rows = batch(arrays, f"batch{index}/")
        following, moves = arrays[f"noise_next{index}"], index % config.policy_interval == 0
        # FlashSAC draws for next states too, which its loss does not use, and draws none where the policy rests.
        current = arrays.get(f"noise_cur{index}", following)[: len(following)]
        metrics = brc.update(state, rows, torch.stack([following, current]), config, moves=moves)
        expected = {"critic_loss": "critic_loss"} | ({"policy_loss": "actor_loss"} if moves else {})
        for ours, theirs in expected.items():
            torch.testing.assert_close(metrics[ours], arrays[f"info{index}/{theirs}"], atol=1e-9, rtol=1e-9)
        if f"step{index + 1}/log_temp" in arrays:
            same(state, golden.state(arrays, f"step{index + 1}/", config))


def test_forward_of_xqc_with_statistics_of_the_batch_and_with_running_ones() -> None:
    """The reference's float32; running statistics are those after one pass."""
    arrays, config = golden.load("xqc_forward_f32", torch.float32), golden.SETTINGS["xqc_update_f64"]
    spec = network_spec(config, observation_size=golden.OBSERVATION, action_size=golden.ACTION, num_tasks=1)
    critic, policy = Critic(spec), Policy(spec)
    golden.set_module(critic, arrays, "critic/", "xqc")
    golden.set_module(policy, arrays, "actor/", "xqc")
    rows = batch(arrays, "in/")
    modes: tuple[tuple[Statistics, str], ...] = (("running", "eval"), ("learned", "train"))
    for statistics, name in modes:
        use_statistics([*critic.norms, *policy.norms], statistics)
        mean, log_std = policy(rows.observations, None)
        logits = critic(rows.observations, rows.actions, None)
        close = partial(torch.testing.assert_close, atol=5e-6, rtol=5e-6)
        close(mean, arrays[f"out/actor_{name}_mean"])
        close(log_std, arrays[f"out/actor_{name}_log_std"])
        close(logits.log_softmax(dim=-1), arrays[f"out/log_probs_{name}"])
        close(categorical.expectation(logits, categorical.support(101, 5.0, logits)), arrays[f"out/q_{name}"])
    for module, part in ((critic, "critic"), (policy, "actor")):
        for key, found in module.named_buffers():
            close(found, golden.value_of(module, key, arrays, f"out/{part}_after/", "xqc"))


def gradients_are(state: brc.BRCState, part: str, arrays: golden.Arrays, prefix: str, network: str) -> None:
    """Check the gradients of a module that an update has left in its optimiser."""
    module, optimizer = state.modules()[part], state.optimizers()[part]
    for key, parameter in module.named_parameters():
        found, expected = gradient(optimizer, parameter), golden.value_of(module, key, arrays, prefix, network)
        assert found is not None, key
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8, msg=f"{part} {key}")


@pytest.mark.parametrize(
    ("name", "of", "ends"),
    [
        ("xqc_losses_f64", "xqc_update_f64", ("", "")),
        ("simbav2_losses_double_f64", "simbav2_update_single_f64", ("", "")),
        ("mse_bronet_single_f64", "", ("_mean", "_mean")),
        ("mse_bronet_single_f64", "", ("_min", "")),
    ],
)
def test_losses_and_gradients_of_each_step_alone(name: str, of: str, ends: tuple[str, str]) -> None:
    """Every step begins with the same networks, the policy's with a critic that has taken none."""
    arrays, (ending, gradients) = golden.load(name), ends
    config = replace(golden.SETTINGS[of], heads=2, target="min") if of else replace(golden.SMALL, loss="mse")
    config = replace(config, target="min") if ending == "_min" else config
    rows = batch(arrays, "in/")
    state, other = (golden.state(arrays, "", config) for _ in range(2))
    temperature = state.temperature()
    found = brc.critic_step(state, rows, arrays["noise_next"], temperature, config, False, None)
    found |= brc.policy_step(other, rows, arrays["noise_cur"], temperature, config, False, None, True)
    for ours, theirs in (
        ("critic_loss", f"critic_loss{ending}"),
        ("policy_loss", f"actor_loss{ending}"),
        ("entropy", "entropy"),
    ):
        torch.testing.assert_close(found[ours], arrays[f"out/{theirs}"], atol=1e-9, rtol=1e-9)
    if gradients or not ending:
        gradients_are(state, "critic", arrays, f"grad_critic{gradients}/", config.network)
        gradients_are(other, "policy", arrays, f"grad_actor{gradients}/", config.network)


def test_the_target_of_xqc_is_the_distribution_of_the_lesser_head() -> None:
    arrays, config = golden.load("xqc_losses_f64"), golden.SETTINGS["xqc_update_f64"]
    rows, state = batch(arrays, "in/"), golden.state(arrays, "", config)
    actions, log_prob = brc.next_action(state, rows, arrays["noise_next"], None)
    torch.testing.assert_close(actions, arrays["out/next_actions"], atol=1e-10, rtol=0)
    torch.testing.assert_close(log_prob, arrays["out/next_log_probs"], atol=1e-10, rtol=0)
    target = brc.bellman_target(state, rows, actions, log_prob, state.temperature(), config)
    torch.testing.assert_close(target, arrays["out/target_probs"], atol=1e-10, rtol=0)


def test_output_layers_of_tasks_are_those_of_multi_headed_sac() -> None:
    """The reference's trunk reads the one-hot task too."""
    arrays = golden.load("multitask_networks_f64")
    layers = (
        Concat((TASK,)),
        *(layer for index in range(3) for layer in (Dense(f"hidden.{index}", 16), ReLU())),
        Dense("output", 3 * 2, blocks=3),
        OwnTask(2),
    )
    with made_in(torch.float64, "cpu"):
        network = TorchNetwork(Network(((OBSERVATION, (11,)), (TASK, (3,))), layers))
    values = {"output.weight": arrays["multi_head/VmapDense_0/kernel"].transpose(1, 2).reshape(6, 16)}
    values["output.bias"] = arrays["multi_head/VmapDense_0/bias"].flatten()
    for index in range(3):
        values[f"hidden.{index}.weight"] = arrays[f"multi_head/layer_{index}/kernel"].T
        values[f"hidden.{index}.bias"] = arrays[f"multi_head/layer_{index}/bias"]
    network.load_state_dict(values)
    tasks = torch.nn.functional.one_hot(arrays["task_ids"].long(), 3).double()
    found = network({OBSERVATION: arrays["inputs"], TASK: tasks})
    torch.testing.assert_close(found, arrays["multi_head/out"], atol=1e-12, rtol=0)


def same(found: brc.BRCState, expected: brc.BRCState) -> None:
    for part in ("critic", "target", "policy"):
        module, other = getattr(found, part), getattr(expected, part)
        for key, value in module.state_dict().items():
            if part == "target" and key.endswith((".mean", ".variance")):
                continue
            torch.testing.assert_close(value, other.state_dict()[key], atol=2e-9, rtol=0, msg=f"{part} {key}")
    torch.testing.assert_close(found.log_temperature, expected.log_temperature, atol=1e-9, rtol=0)
