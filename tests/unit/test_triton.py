"""Kernels in Triton, run by its interpreter on a CPU, against torch's operations for the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.agents import categorical, tanh_normal
from learner.agents.losses import Categorical
from learner.agents.reward_normalizer import RewardNormalizer
from learner.networks import norm
from learner.networks.architectures import bronet
from learner.networks.description import OBSERVATION, Dense
from learner.networks.layers import Products
from tests.support import golden_vectors as golden
from tests.unit.test_chain import INPUTS, made

triton = pytest.importorskip("triton", reason="needs triton")

from learner.agents import adamw_triton, losses_triton  # noqa: E402
from learner.agents.optimizers import CONSTANT, AdamW, Schedule  # noqa: E402
from learner.networks import norm_triton  # noqa: E402
from learner.networks.torch_network import chains  # noqa: E402
from learner.scale.flat import flatten  # noqa: E402


@pytest.fixture(autouse=True)
def on_a_gpu_if_there_is_one() -> Iterator[None]:
    with torch.device(golden.DEVICE):
        yield


SHAPES = pytest.mark.parametrize("shape", [(1, 1, 16), (2, 5, 3), (2, 129, 20)])


@SHAPES
@pytest.mark.parametrize("then", ["nothing", "relu", "add"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_norms_are_those_of_torch(then: str, shape: tuple[int, int, int], half: bool) -> None:
    rng = torch.Generator(golden.DEVICE).manual_seed(0)
    members, _, width = shape
    x, gradient, skip = (torch.randn(shape, generator=rng) for _ in range(3))
    shift, weight, bias = (torch.randn(members, width, generator=rng) for _ in range(3))
    if half:
        x, gradient = x.bfloat16(), gradient.bfloat16()
    relu, added = then == "relu", skip if then == "add" else None
    for whole in (True, False):
        expected, expected_rounded, kept = norm.forward_torch(x, shift, weight, bias, 1e-6, relu, added, whole)
        rounded = None if expected_rounded is None else torch.empty_like(expected_rounded)
        y, statistics = torch.empty(shape) if whole or not half else None, torch.empty_like(kept.statistics)
        norm_triton.forward(x, shift, weight, bias, 1e-6, relu, added, y, rounded, statistics)
        if y is not None:
            torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
        if rounded is not None:
            torch.testing.assert_close(rounded, expected_rounded, rtol=0.01, atol=1e-5)
        torch.testing.assert_close(statistics, kept.statistics, rtol=1e-5, atol=1e-6)
    mask = (y if rounded is None else rounded) if relu else None
    sums, expected_sums = torch.empty(3, members, width), torch.empty(3, members, width)
    into = torch.empty_like(x)
    norm_triton.backward(gradient, mask, x, shift, weight, statistics, into, sums)
    expected_into = norm.backward_torch(gradient, mask, kept._replace(statistics=statistics), expected_sums)
    torch.testing.assert_close(into, expected_into, rtol=0.01 if half else 1e-4, atol=1e-4 if half else 1e-5)
    torch.testing.assert_close(sums, expected_sums, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("follows", [False, True], ids=["alone", "with a target"])
@pytest.mark.parametrize("products", ["exact", "bfloat16"])
@pytest.mark.parametrize("schedule", [CONSTANT, Schedule("linear", 0.1, 4)], ids=["constant", "falling"])
def test_a_pass_is_the_step_of_the_optimiser(products: Products, follows: bool, schedule: Schedule) -> None:
    """Both steps begin from equal states. Their results differ by a unit in the last place of the largest, since torch
    fuses products with sums in other places."""
    networks = [made((*bronet(20, 1), Dense("output", 5)), 2).float() for _ in range(4)]
    for network in networks:
        for chain in chains(network):
            chain.products = products
    theirs, ours = (
        AdamW(
            flatten(one),
            one.parameters(),
            1e-3,
            1e-2,
            target=flatten(other) if follows else None,
            polyak=0.1,
            schedule=schedule,
        )
        for one, other in (networks[:2], networks[2:])
    )
    (leaf,), (mine,) = theirs.flat.leaves, ours.flat.leaves
    chain, target = ours.flat.chains[0], None if ours.target is None else ours.target.chains[0]
    for _ in range(5):
        theirs.zero_grad()
        x = torch.randn(9, INPUTS, generator=torch.Generator(golden.DEVICE).manual_seed(int(theirs.steps)))
        networks[0]({OBSERVATION: x}).square().sum().backward()
        assert leaf.grad is not None
        pairs = [(leaf, mine), *zip(theirs.moments[id(leaf)], ours.moments[id(mine)], strict=True)]
        if target is not None and target.leaf is not None and theirs.target is not None:
            pairs.append((theirs.target.leaves[0], target.leaf))
        with torch.no_grad():
            for one, other in pairs:
                other.copy_(one)
        theirs.step()
        squares = adamw_triton.step(
            mine.detach(), leaf.grad, *ours.moments[id(mine)], None if target is None else target.leaf, chain.rounded,
            None if target is None else target.rounded, theirs.steps,
            rate=1e-3, betas=(0.9, 0.999), epsilon=1e-8, decay=1e-2, polyak=0.1,
            fraction=schedule.at(theirs.steps - 1),
        )  # fmt: skip
        for one, other in pairs:
            torch.testing.assert_close(other, one, rtol=0, atol=1.2e-7 * float(one.abs().max()))
        torch.testing.assert_close(squares.sqrt(), torch.stack(list(theirs.norms("x").values())), rtol=1e-6, atol=0)
        for each in (chain, *([] if target is None else [target])):
            assert each.leaf is not None and (each.rounded is None) == (products == "exact")
            if each.rounded is not None:  # the interpreter cuts numbers off where a GPU rounds them
                torch.testing.assert_close(each.rounded.float(), each.leaf.detach(), rtol=2**-7, atol=0)


def slopes(function: Callable[..., Any], *inputs: Tensor) -> list[Tensor]:
    """Return the results of a function, and the gradients of its inputs from slopes that differ by row."""
    free = [one.clone().requires_grad_() for one in inputs]
    found = function(*free)
    found = [found] if isinstance(found, Tensor) else list(found)
    weights = [torch.linspace(-1.0, 2.0, one.numel()).view_as(one) for one in found]
    return [*found, *torch.autograd.grad(found, free, weights)]


def gradient_of_mean(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    free = x.clone().requires_grad_()
    return torch.autograd.grad(function(free).mean(), free)[0]


@pytest.mark.parametrize(("heads", "rows", "bins"), [(1, 1, 2), (2, 5, 101), (3, 7, 128)])
def test_losses_are_those_of_torch(heads: int, rows: int, bins: int) -> None:
    rng = torch.Generator(golden.DEVICE).manual_seed(bins)
    logits, following = (3 * torch.randn(heads, rows, bins, generator=rng) for _ in range(2))
    rewards, costs = (8 * torch.randn(rows, generator=rng) for _ in range(2))
    discounts = 0.99 * (torch.rand(rows, generator=rng) < 0.8)
    loss = Categorical(10.0)
    atoms = categorical.support(bins, 10.0, logits)
    for cost in (costs, None):
        target = loss.target(following, rewards, discounts, cost)
        ours = losses_triton.target(following, atoms, rewards, discounts, cost, 10.0)
        torch.testing.assert_close(ours, target, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.sum(dim=-1), torch.ones(rows), rtol=0, atol=1e-5)
    for ours_of, theirs_of in (
        (lambda x: losses_triton.cross_entropy(x, target), lambda x: categorical.cross_entropy(x, target)),
        (lambda x: losses_triton.expectation(x, atoms), lambda x: categorical.expectation(x, atoms)),
    ):
        for ours, theirs in zip(slopes(ours_of, logits), slopes(theirs_of, logits), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        mean = [gradient_of_mean(of, logits) for of in (ours_of, theirs_of)]
        torch.testing.assert_close(*mean, rtol=1e-5, atol=1e-6)


def test_losses_that_are_not_finite_stay_so() -> None:
    logits, atoms = torch.zeros(2, 3, 101), categorical.support(101, 10.0, torch.zeros(1))
    rewards = torch.tensor([0.0, torch.nan, 1.0])
    target = losses_triton.target(logits, atoms, rewards, torch.ones(3), None, 10.0)
    assert target.isnan().any(dim=-1).tolist() == [False, True, False]
    assert losses_triton.cross_entropy(logits, target).isnan().tolist() == [[False, True, False]] * 2
    logits[0, 2, 5] = torch.nan
    assert losses_triton.expectation(logits, atoms).isnan().tolist() == [[False, False, True], [False] * 3]


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (5, 21), (3, 64)])
def test_samples_are_those_of_torch(rows: int, size: int) -> None:
    rng = torch.Generator(golden.DEVICE).manual_seed(size)
    mean, log_std, noise = (torch.randn(rows, size, generator=rng) for _ in range(3))
    mean[0, 0] = 40.0  # where 1 - tanh(u)^2 underflows
    ours = slopes(lambda one, two: losses_triton.sample(one, two, noise), mean, log_std)
    theirs = slopes(lambda one, two: tanh_normal.sample(one, two, noise), mean, log_std)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("entropy", [0.0, -3.0])
def test_rewards_are_those_of_torch(entropy: float) -> None:
    normalizer = RewardNormalizer(5, 0.99, entropy, 10.0, golden.DEVICE)
    inf = torch.inf
    normalizer.merge(torch.tensor([-3.0, inf, 0.0, 1.0, -7.0]), torch.tensor([5.0, -inf, 0.0, 2.0, -6.0]))
    rewards, tasks = torch.randn(300, generator=torch.Generator(golden.DEVICE).manual_seed(0)), torch.arange(300) % 5
    temperature = torch.tensor(0.1)
    ours = losses_triton.normalize(
        rewards, tasks, normalizer.minimum, normalizer.maximum, temperature, normalizer.entropy_return, 10.0
    )
    torch.testing.assert_close(ours, normalizer.normalize(rewards, tasks, temperature), rtol=1e-6, atol=0)


NUMBERS = ("rows", "bins", "heads", "size", "count", "head_stride", "row_stride", "stride")


def arguments(kernel: Any, constants: dict[str, Any]) -> dict[str, str]:
    """Return the types of a kernel's arguments: float32 tensors, whole numbers by their names, and tasks."""
    types = {"limit": "fp32", "entropy_return": "fp32", "tasks": "*i64"} | dict.fromkeys(NUMBERS, "i32")
    return {name: types.get(name, "*fp32") for name in kernel.arg_names if name not in constants}


LOSSES: list[tuple[Any, dict[str, Any], int]] = [
    (losses_triton.target_kernel, {"COSTS": True, "BINS": 128}, 8),
    (losses_triton.cross_entropy_kernel, {"BINS": 128}, 4),
    (losses_triton.cross_entropy_gradient_kernel, {"BINS": 128}, 4),
    (losses_triton.expectation_kernel, {"BINS": 128}, 4),
    (losses_triton.expectation_gradient_kernel, {"BINS": 128}, 4),
    (losses_triton.sample_kernel, {"CONSTANT": 2.3, "SIZE": 32}, 4),
    (losses_triton.sample_gradient_kernel, {"SIZE": 32}, 4),
    (losses_triton.normalize_kernel, {"BLOCK": losses_triton.BLOCK}, 4),
]
KERNELS: list[tuple[Any, dict[str, str], dict[str, Any], int]] = [
    *(
        (
            norm_triton.forward_kernel,
            {"x": number, **dict.fromkeys(("shift", "weight", "bias", "skip", "y", "statistics"), "*fp32")}
            | {"rounded": "*bf16", "rows": "i32", "width": "i32", "epsilon": "fp32"},
            {"RELU": True, "SKIP": True, "WHOLE": True, "HALF": number == "*bf16", "BLOCK": 4096},
            norm_triton.warps(4096),
        )
        for number in ("*fp32", "*bf16")
    ),
    *(
        (
            norm_triton.backward_kernel,
            {**dict.fromkeys(("gradient", "y", "x", "into"), number), "members": "i32", "rows": "i32", "width": "i32"}
            | dict.fromkeys(("shift", "weight", "statistics", "partial"), "*fp32"),
            {"RELU": True, "HALF": number == "*bf16", "BLOCK": 4096},
            norm_triton.warps(4096),
        )
        for number in ("*fp32", "*bf16")
    ),
    (
        adamw_triton.step_kernel,
        dict.fromkeys(("values", "gradient", "first", "second", "target", "steps", "squares", "fraction"), "*fp32")
        | {"rounded": "*bf16", "target_rounded": "*bf16", "count": "i32"}
        | dict.fromkeys(("rate", "decay", "epsilon", "polyak"), "fp32"),
        {
            "BETA1": 0.9,
            "BETA2": 0.999,
            "LOG_BETA1": -0.105,
            "LOG_BETA2": -0.001,
            "FALLS": True,
            "FOLLOWS": True,
            "ROUNDS": True,
            "ROUNDS_TARGET": True,
        }
        | {"BLOCK": adamw_triton.BLOCK},
        4,
    ),
    *((kernel, arguments(kernel, constants), constants, warps) for kernel, constants, warps in LOSSES),
]


def compiled() -> None:
    """Compile every kernel for an H100, and print its name and the registers that it spills."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for kernel, arguments, constants, warps in KERNELS:
        signature = arguments | dict.fromkeys(constants, "constexpr")
        values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=values)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
        print(kernel.__name__, len(made.asm["cubin"]))


def test_kernels_compile_for_a_gpu() -> None:
    """In a process of its own, where the interpreter is not in use."""
    command = [sys.executable, "-c", "from tests.unit.test_triton import compiled; compiled()"]
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(KERNELS)
