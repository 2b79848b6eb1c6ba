"""All forms of every network agree: torch, numpy, ONNX, and the sizes computed from its description."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from actors.policies.network import NumpyNetwork
from cluster.cli.onnx_graph import model_of
from examples.own_network import FUNNEL
from learner.networks import registry
from learner.networks.architectures import ARCHITECTURES
from learner.networks.description import (
    OBSERVATION,
    TASK,
    Concat,
    Dense,
    LayerNorm,
    Network,
    OwnTask,
    ReLU,
    Residual,
    placed,
)
from learner.networks.layers import BatchNorm, RunningNormalizer
from learner.networks.sizes import buffers_of, parameters
from learner.networks.spec import NetworkSpec
from learner.networks.torch_network import TorchNetwork

SPEC = NetworkSpec(
    observation_size=7,
    action_size=3,
    num_tasks=4,
    width=24,
    policy_width=16,
    policy_depth=2,
    embedding_size=5,
    num_bins=11,
)
DISCRETE = replace(SPEC, num_actions=(3, 5), num_tasks=2)
IMAGES = replace(DISCRETE, observation_size=4 * 20 * 21, image=(4, 20, 21))
NETWORKS = {
    "critic": registry.critic(SPEC),
    "critic of one task": registry.critic(replace(SPEC, num_tasks=1)),
    "critic of normalised observations": registry.critic(replace(SPEC, normalize_observations=True)),
    "policy": registry.policy(SPEC),
    "policy of one task": registry.policy(replace(SPEC, num_tasks=1)),
    "policy of normalised observations": registry.policy(replace(SPEC, normalize_observations=True)),
    "discrete critic": registry.discrete_critic(DISCRETE),
    "discrete critic of images": registry.discrete_critic(IMAGES),
}
ARCHITECTURES["funnel"] = FUNNEL
NETWORKS |= {
    f"{name} of {network}": getattr(registry, name)(replace(SPEC, network=network))
    for name in ("critic", "policy")
    for network in ARCHITECTURES
}
NETWORKS |= {
    f"{name} with {conditioning}": getattr(registry, name)(replace(SPEC, conditioning=conditioning, network=network))
    for name, network in (("critic", "bronet"), ("policy", "simbav2"))
    for conditioning in ("one-hot", "heads", "none")
}
LATE = (Concat((TASK,)), LayerNorm("norm"), Dense("first", 8), Concat((TASK,)), ReLU(), Dense("second", 3))
NETWORKS["inputs before a LayerNorm and a ReLU"] = Network(((OBSERVATION, (7,)), (TASK, (5,))), LATE)
EACH = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def made(network: Network) -> TorchNetwork:
    """Return a network with disturbed parameters and random running statistics."""
    torch.manual_seed(0)
    found = TorchNetwork(network)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for module in found.modules():
        if isinstance(module, RunningNormalizer):
            module.observe(torch.randn(module.mean.shape), torch.rand(module.mean.shape) + 0.5, 100.0)
        if isinstance(module, BatchNorm):
            module.mean.normal_()
            module.variance.uniform_(0.5, 1.5)
    return found


def arrays(module: TorchNetwork) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def inputs(network: Network, rows: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    found = {name: rng.normal(size=(rows, *shape)).astype(np.float32) for name, shape in network.inputs}
    if any(isinstance(place.layer, OwnTask) for place in placed(network)):
        found[TASK] = np.eye(found[TASK].shape[1], dtype=np.float32)[np.arange(rows) % found[TASK].shape[1]]
    return found


def by_name(output: Any) -> dict[str, np.ndarray]:
    found = output if isinstance(output, dict) else {"output": output}
    return {name: value.detach().numpy() if isinstance(value, torch.Tensor) else value for name, value in found.items()}


@EACH
def test_numpy_and_onnx_give_what_torch_gives(network: Network) -> None:
    module, given = made(network), inputs(network)
    images = len(network.shape(OBSERVATION)) == 3
    if images:  # actors have bytes, where 255 stands for 1
        bytes_of = np.random.default_rng(2).integers(0, 256, given[OBSERVATION].shape).astype(np.uint8)
        given[OBSERVATION] = bytes_of.astype(np.float32) / 255
    wanted = by_name(module({name: torch.from_numpy(value) for name, value in given.items()}))
    constants = {name: value for name, value in given.items() if name != OBSERVATION}
    observed = bytes_of if images else given[OBSERVATION]
    kept = observed.copy()
    for name, value in by_name(NumpyNetwork(network, arrays(module), constants)(observed)).items():
        np.testing.assert_allclose(value, wanted[name], atol=2e-5)
    np.testing.assert_array_equal(observed, kept, "an actor's own array")
    if images:
        return  # a network of images has no ONNX form: `brc export` writes policies
    session = onnxruntime.InferenceSession(model_of(network, arrays(module)).SerializeToString())
    for name, value in zip(wanted, session.run(list(wanted), given), strict=True):
        np.testing.assert_allclose(value, wanted[name], atol=2e-5)


@EACH
def test_a_network_takes_what_its_description_says(network: Network) -> None:
    module = TorchNetwork(network)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters(network)
    buffers = sum(place.copies * buffers_of(place) for place in placed(network))
    assert sum(buffer.numel() for buffer in module.buffers()) == buffers


@EACH
def test_gradients_pass_through_every_parameter(network: Network) -> None:
    module = made(network)
    output = module({name: torch.from_numpy(value) for name, value in inputs(network).items()})
    outputs = list(output.values()) if isinstance(output, dict) else [output]
    sum(value.square().sum() for value in outputs).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_a_residual_that_changes_its_size_is_refused() -> None:
    network = Network(((OBSERVATION, (3,)),), (Residual("block", (Dense("dense", 4),)),))
    with pytest.raises(ValueError, match=r"residual block makes \(4,\) of \(3,\)"):
        placed(network)


def test_running_statistics_are_those_of_all_that_was_observed() -> None:
    rng = torch.Generator().manual_seed(0)
    rows = 3.0 + 2.0 * torch.randn(300, 4, generator=rng)
    norm = RunningNormalizer(4, 1e-8)
    for part in rows.split([100, 1, 199]):
        norm.observe(part.mean(dim=0), part.var(dim=0, unbiased=False), len(part))
    torch.testing.assert_close(norm.mean, rows.mean(dim=0), atol=1e-3, rtol=0)
    torch.testing.assert_close(norm.variance, rows.var(dim=0, unbiased=False), atol=1e-3, rtol=0)
    assert norm(rows).std() == pytest.approx(1.0, abs=0.01)


def test_what_is_behind_the_observation_has_its_place() -> None:
    assert placed(NETWORKS["critic"])[0].layer == Concat(("action", "task"))
    assert placed(NETWORKS["critic of one task"])[0].layer == Concat(("action",))
