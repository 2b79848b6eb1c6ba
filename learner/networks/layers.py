"""The layers of networks as torch modules with their initial values.

`reset_parameters` of every module sets the initial values of its own parameters and buffers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learner.networks.parallel import Parts


class Linear(nn.Linear):
    """Compute x W' + b. W is initialised orthogonal with a gain, b to zero.

    Attributes:
        columns: the ranks over which the rows of W, which are the columns of the output, are divided, if they are.
    """

    columns: Parts | None = None

    def __init__(self, inputs: int, outputs: int, gain: float) -> None:
        self.gain = gain
        super().__init__(inputs, outputs)

    def reset_parameters(self) -> None:
        nn.init.orthogonal_(self.weight, self.gain)
        nn.init.zeros_(self.bias)


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
