"""The layers of networks as torch modules with their initial values.

`reset_parameters` of every module sets the initial values of its own parameters and buffers.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner.networks import description
from learner.networks.description import Dense
from learner.networks.parallel import Parts, local, over_ranks

TINY = 1e-8  # the least norm that a row of weights is divided by
Products = Literal["exact", "bfloat16", "rounded"]
Statistics = Literal["running", "batch", "learned"]


def as_factor(tensor: Tensor, products: Products) -> Tensor:
    """Return a factor of a product in the precision of products."""
    if products == "exact":
        return tensor
    return tensor.bfloat16() if products == "bfloat16" else tensor.bfloat16().to(tensor.dtype)


def as_result(tensor: Tensor, products: Products) -> Tensor:
    """Return the result of a product in the precision of products. `bfloat16` gives bfloat16."""
    return tensor.bfloat16().to(tensor.dtype) if products == "rounded" else tensor


class Linear(nn.Linear):
    """Compute x W' + b, or x W' without a bias (description.Dense).

    Attributes:
        columns: the ranks over which the rows of W, which are the columns of the output, are divided, if they are.
        products: precision of the product, outside of chains (learner.networks.chain).
    """

    columns: Parts | None = None
    products: Products = "exact"

    def __init__(self, layer: Dense, inputs: int) -> None:
        self.layer = layer
        super().__init__(inputs, layer.outputs, layer.bias)

    def reset_parameters(self) -> None:
        match self.layer.start:
            case "orthogonal":
                for block in self.weight.chunk(self.layer.blocks):
                    nn.init.orthogonal_(block, self.layer.gain)
            case "he_normal":
                # By the inverse of its distribution: torch's own draws again what is beyond, which waits for a device.
                # A normal cut at two deviations has 0.8796 of its deviation.
                most, std = math.erf(math.sqrt(2.0)), math.sqrt(2.0 / self.in_features) / 0.87962566103423978
                nn.init.uniform_(self.weight, -most, most)
                with torch.no_grad():
                    self.weight.erfinv_().mul_(math.sqrt(2.0) * std).clamp_(-2.0 * std, 2.0 * std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.project()

    def forward(self, x: Tensor) -> Tensor:
        if self.products == "exact":
            return F.linear(x, self.weight, self.bias)
        product = F.linear(as_factor(x, self.products), as_factor(self.weight, self.products))
        product = as_result(product, self.products).to(x.dtype)
        return product if self.bias is None else product + self.bias

    @torch.no_grad()
    def project(self) -> None:
        """Scale every row of W to norm 1, if the description says so."""
        if self.layer.projected:
            weight = local(self.weight)
            weight /= torch.linalg.vector_norm(weight, dim=1, keepdim=True).clamp_min_(TINY)


class Convolution3x3(nn.Conv2d):
    """A zero-padded 3 x 3 convolution. Weights are initialised Xavier-uniform, biases to zero."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)


class RunningNormalizer(nn.Module):
    """Compute (x - mean) / sqrt(variance + epsilon). The statistics cover all rows given to `observe` (Chan's rule).

    Each number of an observation has a count of its own: after a transfer, new numbers begin at the start.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        for name in ("mean", "variance", "count"):
            self.register_buffer(name, torch.empty(size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.mean.zero_()
        self.variance.fill_(1.0)
        self.count.fill_(1e-4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = (x - self.mean) * torch.rsqrt(self.variance + self.epsilon)
        return found

    @torch.no_grad()
    def observe(self, mean: Tensor, variance: Tensor, rows: float) -> None:
        """Add `rows` rows to the statistics, given their mean and biased variance, each (size,) (Chan's rule)."""
        total = self.count + rows
        gap = mean - self.mean
        sums = self.variance * self.count + variance * rows + gap.square() * self.count * rows / total
        self.mean += gap * rows / total
        self.variance.copy_(sums / total)
        self.count.copy_(total)


class BatchNorm(nn.Module):
    """Normalise features over the rows of a batch (description.BatchNorm).

    Attributes:
        statistics: those that the forward pass uses: `running`; `batch`, of the rows and through which gradients flow;
            or `learned`, which is `batch` and moves the running statistics.
        ranks: number of ranks that each have some rows of a batch.
    """

    mean: Tensor
    variance: Tensor
    statistics: Statistics = "running"
    ranks = 1

    def __init__(self, size: int, layer: description.BatchNorm) -> None:
        super().__init__()
        self.layer = layer
        self.weight, self.bias = nn.Parameter(torch.empty(size)), nn.Parameter(torch.empty(size))
        for name in ("mean", "variance"):
            self.register_buffer(name, torch.empty(size))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.fill_(1.0)
        self.bias.zero_()
        self.mean.zero_()
        self.variance.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        epsilon = self.layer.epsilon
        if self.statistics == "running":
            factor = self.weight * torch.rsqrt(self.variance + epsilon)
            return torch.addcmul(self.bias - self.mean * factor, x, factor)
        if self.ranks == 1:
            y, mean, inverse = torch.native_batch_norm(x, self.weight, self.bias, None, None, True, 0.0, epsilon)
            if self.statistics == "learned":
                self.learn(mean, inverse.square().reciprocal() - epsilon, len(x))
            return y
        mean = over_ranks(x.mean(dim=0), self.ranks)
        # About the mean of all ranks: a difference of squares would lose the variance of inputs that are far from 0.
        variance = over_ranks((x - mean).square().mean(dim=0), self.ranks)
        if self.statistics == "learned":
            self.learn(mean, variance, len(x) * self.ranks)
        return (x - mean) * torch.rsqrt(variance + epsilon) * self.weight + self.bias

    @torch.no_grad()
    def learn(self, mean: Tensor, variance: Tensor, rows: int) -> None:
        """Move the running statistics towards a batch's mean and biased variance."""
        self.mean.lerp_(mean, self.layer.momentum)
        self.variance.lerp_(variance * (rows / (rows - 1)) if self.layer.unbiased else variance, self.layer.momentum)

    @torch.no_grad()
    def project(self) -> None:
        """Scale weight and bias so that the sum of their squares is the number of features, if the description says
        so."""
        if self.layer.projected:
            norm = (self.weight.square().sum() + self.bias.square().sum()).sqrt()
            factor = math.sqrt(len(self.weight)) / norm.clamp_min_(TINY)
            self.weight.mul_(factor)
            self.bias.mul_(factor)


class RMSNorm(nn.Module):
    """Divide rows by the root of their mean square, then apply a learned scale (description.RMSNorm)."""

    def __init__(self, size: int, layer: description.RMSNorm) -> None:
        super().__init__()
        self.layer = layer
        self.weight = nn.Parameter(torch.empty(size))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.layer.epsilon)

    @torch.no_grad()
    def project(self) -> None:
        """Scale the weight to the norm sqrt(features), if the description says so."""
        if self.layer.projected:
            norm = torch.linalg.vector_norm(self.weight)
            self.weight.mul_(math.sqrt(len(self.weight)) / norm.clamp_min_(TINY))


class Scaler(nn.Module):
    """Multiply features by learned factors (description.Scaler)."""

    def __init__(self, size: int, initial: float, scale: float) -> None:
        super().__init__()
        self.scale, self.ratio = scale, initial / scale
        self.weight = nn.Parameter(torch.empty(size))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.fill_(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.weight if self.ratio == 1.0 else self.weight * self.ratio)


Projected = Linear | BatchNorm | RMSNorm


def projected(network: nn.Module) -> list[Projected]:
    """Return the layers whose parameters are projected after every step of an optimiser."""
    return [part for part in network.modules() if isinstance(part, Projected) and part.layer.projected]


def batch_norms(network: nn.Module) -> list[BatchNorm]:
    return [part for part in network.modules() if isinstance(part, BatchNorm)]
