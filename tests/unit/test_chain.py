"""Chains of flat layers: their kernels, and gradients against those of torch's autograd."""

from __future__ import annotations

import math
import shutil
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner.agents.optimizers import AdamW
from learner.networks import norm
from learner.networks.architectures import bronet, simba
from learner.networks.description import (
    OBSERVATION,
    Convolution,
    Dense,
    Ensemble,
    Flatten,
    Heads,
    LayerNorm,
    Layers,
    Network,
    ReLU,
    Residual,
)
from learner.networks.layers import Products
from learner.networks.torch_network import TorchNetwork, chains
from learner.scale.flat import flatten
from tests.support.golden_vectors import gradient as gradient_of

ROWS, INPUTS = 6, 7
AFTER_A_NORM = (Dense("input", 12), LayerNorm("norm"), Residual("block", (ReLU(), Dense("dense", 12))), ReLU())
TRUNKS: dict[str, Layers] = {
    "bronet": (*bronet(12, 2), Dense("output", 5)),
    "simba": (*simba(12, 2), Dense("output", 5)),
    "a norm first": (LayerNorm("norm"), ReLU(), Dense("dense", 5)),
    "a residual first and last": (Residual("block", (Dense("dense", INPUTS), LayerNorm("norm"))),),
    "a residual behind a norm": AFTER_A_NORM,
    "products alone": (Dense("one", 9), Dense("two", 5)),
}
EACH = pytest.mark.parametrize("layers", TRUNKS.values(), ids=TRUNKS.keys())


def network(layers: Layers, members: int) -> Network:
    return Network(((OBSERVATION, (INPUTS,)),), (Ensemble("heads", members, layers),) if members else layers)


def made(layers: Layers, members: int) -> TorchNetwork:
    torch.manual_seed(0)
    found = TorchNetwork(network(layers, members)).double()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return found


def plain(layers: Layers, x: Tensor, parameters: dict[str, nn.Parameter], prefix: str = "") -> Tensor:
    """Return the output of layers, computed by torch's functions one after another."""
    for layer in layers:
        match layer:
            case Dense(name):
                x = F.linear(x, parameters[f"{prefix}{name}.weight"], parameters[f"{prefix}{name}.bias"])
            case LayerNorm(name, epsilon):
                weight, bias = parameters[f"{prefix}{name}.weight"], parameters[f"{prefix}{name}.bias"]
                x = F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)
            case ReLU():
                x = F.relu(x)
            case Residual(name, inner):
                x = x + plain(inner, x, parameters, f"{prefix}{name}.")
            case Ensemble(name, count, inner):
                x = torch.stack([plain(inner, x, parameters, f"{prefix}{name}.{member}.") for member in range(count)])
            case _:
                raise AssertionError(layer)
    return x


@EACH
@pytest.mark.parametrize("members", [0, 1, 3])
@pytest.mark.parametrize("flat", [False, True], ids=["by parameter", "flat"])
def test_gradients_are_those_of_autograd(layers: Layers, members: int, flat: bool) -> None:
    module = made(layers, members)
    named = {name: nn.Parameter(p.detach().clone()) for name, p in module.named_parameters()}
    x = torch.randn(ROWS, INPUTS, dtype=torch.float64, requires_grad=True)
    optimizer = AdamW(flatten(module), module.parameters(), 0.1) if flat else None
    output = module({OBSERVATION: x})
    expected = plain(module.network.layers, x, named)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(output)
    theirs = torch.autograd.grad((expected * weights).sum(), [x, *named.values()])
    for _ in range(2):  # the second gradients are added to the first
        (output * weights).sum().backward(retain_graph=True)
    torch.testing.assert_close(x.grad, 2 * theirs[0], rtol=0, atol=1e-11)
    for (name, parameter), gradient in zip(module.named_parameters(), theirs[1:], strict=True):
        found = parameter.grad if optimizer is None else gradient_of(optimizer, parameter)
        torch.testing.assert_close(found, 2 * gradient, rtol=0, atol=1e-11, msg=name)


@EACH
@pytest.mark.parametrize("flat", [False, True], ids=["by parameter", "flat"])
@pytest.mark.parametrize("products", ["bfloat16", "rounded"])
def test_bfloat16_is_near_what_is_exact(layers: Layers, products: Products, flat: bool) -> None:
    exact, mixed = made(layers, 2).float(), made(layers, 2).float()
    for chain in chains(mixed):
        chain.products = products
    found = []
    for module in (exact, mixed):
        optimizer = AdamW(flatten(module), module.parameters(), 0.1) if flat else None
        x = torch.randn(200, INPUTS, generator=torch.Generator().manual_seed(1)).requires_grad_()
        output = module({OBSERVATION: x})
        (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
        gradients = [p.grad if optimizer is None else gradient_of(optimizer, p) for p in module.parameters()]
        found.append([output, x.grad, *gradients])
    for ours, theirs in zip(*found, strict=True):
        assert ours is not None and theirs is not None and ours.dtype == theirs.dtype == torch.float32
        assert (ours - theirs).norm() < 0.25 * ours.norm() + 1e-4  # a few ReLUs switch
    assert not torch.equal(found[0][0], found[1][0])


@EACH
def test_rounded_weights_follow_a_step(layers: Layers) -> None:
    module = made(layers, 2).float()
    for chain in chains(module):
        chain.products = "bfloat16"
    optimizer = AdamW(flatten(module), module.parameters(), 0.1)
    x = torch.randn(ROWS, INPUTS)
    before = module({OBSERVATION: x})
    before.sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = module({OBSERVATION: x})
    fresh = made(layers, 2).float()
    fresh.load_state_dict(module.state_dict())
    for chain in chains(fresh):
        chain.products = "bfloat16"
    torch.testing.assert_close(after, fresh({OBSERVATION: x}), rtol=0, atol=1e-6)
    assert (after - before).abs().max() > 1e-3


@EACH
def test_only_what_is_needed_gets_a_gradient(layers: Layers) -> None:
    module = made(layers, 2)
    x = torch.randn(ROWS, INPUTS, dtype=torch.float64)
    module({OBSERVATION: x}).sum().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    module.zero_grad()
    module.requires_grad_(False)
    inputs = x.clone().requires_grad_()
    module({OBSERVATION: inputs}).sum().backward()
    assert inputs.grad is not None and all(gradient is not None for gradient in gradients)
    assert all(parameter.grad is None for parameter in module.parameters())
    with torch.no_grad():
        torch.testing.assert_close(module({OBSERVATION: x}), module({OBSERVATION: inputs}).detach(), rtol=0, atol=0)


def test_the_parameters_of_a_flat_network_are_views_of_its_leaves() -> None:
    module = made((*bronet(12, 2), Dense("output", 5)), 2)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    flat = flatten(module)
    (leaf,) = flat.leaves
    assert leaf.numel() == sum(parameter.numel() for parameter in module.parameters())
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=0)
    with torch.no_grad():
        leaf.zero_()
    assert not any(parameter.any() for parameter in module.parameters())
    (chain,) = chains(module)
    assert len(chain.members) == 2 and chain.leaf is leaf


def test_a_network_that_is_converted_afterwards_is_refused() -> None:
    module = made((*bronet(12, 1), Dense("output", 5)), 2)
    flatten(module)
    module.float()
    with pytest.raises(RuntimeError, match="converted after its optimiser was made"):
        module({OBSERVATION: torch.zeros(1, INPUTS)})


@EACH
@pytest.mark.parametrize("members", [0, 2])
def test_rows_may_have_several_dimensions(layers: Layers, members: int) -> None:
    module = made(layers, members)
    x = torch.randn(4, ROWS, INPUTS, dtype=torch.float64)
    together = module({OBSERVATION: x})
    alone = torch.stack([module({OBSERVATION: part}) for part in x], dim=-3)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_layers_without_parameters_are_no_chain_by_themselves() -> None:
    """A chain would take a ReLU between two convolutions out of their memory format."""
    image = (Convolution("first", 4), ReLU(), Convolution("second", 4), Flatten(), Dense("output", 3))
    module = TorchNetwork(Network(((OBSERVATION, (2, 6, 6)),), image))
    (chain,) = chains(module)
    assert [operation.kind for operation in chain.operations] == ["dense"]


def test_branches_with_other_epsilons_are_computed_apart() -> None:
    branches = tuple((name, (LayerNorm(name, epsilon),)) for name, epsilon in (("one", 1e-6), ("two", 10.0)))
    module = TorchNetwork(Network(((OBSERVATION, (INPUTS,)),), (Dense("first", 4), Heads(branches))))
    x = torch.randn(ROWS, INPUTS)
    found = module({OBSERVATION: x})
    hidden = F.linear(x, module.get_parameter("first.weight"), module.get_parameter("first.bias"))
    torch.testing.assert_close(found["one"], F.layer_norm(hidden, (4,), eps=1e-6))
    torch.testing.assert_close(found["two"], F.layer_norm(hidden, (4,), eps=10.0))


def test_a_second_derivative_is_refused() -> None:
    module = made((*bronet(12, 1), Dense("output", 5)), 2)
    x = torch.randn(ROWS, INPUTS, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module({OBSERVATION: x}).sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.square().sum().backward()


@pytest.mark.skipif(norm.KERNEL is None and shutil.which("cc") is None, reason="needs a C compiler")
def test_the_kernel_is_compiled_where_it_can_be() -> None:
    assert norm.KERNEL is not None, "norm.c was not compiled when this was installed"


@pytest.mark.skipif(norm.KERNEL is None, reason="needs a C compiler")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 3), (1, 7, 16), (3, 33, 45), (2, 128, 256), (1, 500, 129)])
@pytest.mark.parametrize("then", ["nothing", "relu", "add"])
def test_the_kernel_gives_what_torch_gives(then: str, shape: tuple[int, int, int], threads: int) -> None:
    rng = torch.Generator().manual_seed(0)
    members, _, width = shape
    x, gradient, skip = (torch.randn(shape, generator=rng) for _ in range(3))
    shift, weight, bias = (torch.randn(members, width, generator=rng) for _ in range(3))
    arguments = (x, shift, weight, bias, 1e-6, then == "relu", skip if then == "add" else None)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        (ours, _, kept), sums = norm.forward(*arguments), torch.empty(3, members, width)
        into = norm.backward(gradient, ours if then == "relu" else None, kept, sums)
    finally:
        torch.set_num_threads(before)
    exact: list[Any] = [value.double() if isinstance(value, Tensor) else value for value in arguments]
    (theirs, _, expected), exact_sums = norm.forward_torch(*exact), torch.empty(3, members, width, dtype=torch.float64)
    exact_into = norm.backward_torch(gradient.double(), theirs if then == "relu" else None, expected, exact_sums)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    if width > 1:  # of one number the variance is 0: its gradient is the difference of equal numbers
        torch.testing.assert_close(into.double(), exact_into, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(sums.double(), exact_sums, rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(norm.KERNEL is None, reason="needs a C compiler")
@pytest.mark.parametrize("shape", [(1, 1, 5), (2, 9, 16), (2, 40, 45)])
@pytest.mark.parametrize("then", ["nothing", "relu", "add"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["gradient", "rounded gradient"])
def test_the_kernel_rounds_as_torch_does(then: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Results of products come in bfloat16. Sums in another order round a few numbers differently."""
    rng = torch.Generator().manual_seed(0)
    members, _, width = shape
    x, gradient, skip = (torch.randn(shape, generator=rng) for _ in range(3))
    shift, weight, bias = (torch.randn(members, width, generator=rng) for _ in range(3))
    arguments = (x.bfloat16(), shift, weight, bias, 1e-6, then == "relu", skip if then == "add" else None)
    found = []
    for forward, backward in ((norm.forward, norm.backward), (norm.forward_torch, norm.backward_torch)):
        y, rounded, kept = forward(*arguments)
        assert rounded is not None and torch.equal(rounded, y.bfloat16())
        only, same, _ = forward(*arguments, whole=False)
        assert only is same and torch.equal(only, rounded)
        sums = torch.empty(3, members, width)
        into = backward(gradient.to(dtype), rounded if then == "relu" else None, kept, sums)
        assert into.dtype == torch.bfloat16
        found.append((y, into.float(), sums))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.01, atol=1e-4)


@pytest.mark.skipif(norm.KERNEL is None, reason="needs a C compiler")
def test_the_kernel_passes_a_nan_on() -> None:
    x, ones = torch.ones(1, 2, 40), torch.ones(1, 40)
    x[0, 1, 39] = math.nan
    y, _, kept = norm.forward(x, ones, ones, ones, 1e-6, True, None)
    assert torch.isfinite(y[0, 0]).all() and torch.isnan(y[0, 1]).all()
    into = norm.backward(torch.ones_like(y), y, kept, torch.empty(3, 1, 40))
    assert torch.isfinite(into[0, 0]).all() and torch.isnan(into[0, 1]).all()
