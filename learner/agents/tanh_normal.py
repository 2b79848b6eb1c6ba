"""The tanh-squashed normal distribution of the policy, with the noise as an argument."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from learner.networks import triton_switch

LOG_SQRT_2_PI = 0.5 * math.log(2.0 * math.pi)
LOG_2 = math.log(2.0)


def sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return actions tanh(mean + std * noise) in [-1, 1], (batch, actions), and their log-density, (batch,).

    The tanh correction is 2(ln 2 - u - softplus(-2u)). It is exact where 1 - tanh(u)^2 underflows; no epsilon is added.
    """
    if triton_switch.serves(mean):
        from learner.agents import losses_triton

        return losses_triton.sample(mean, log_std, noise)
    pre_tanh = mean + torch.exp(log_std) * noise
    correction = 2.0 * (LOG_2 - pre_tanh - F.softplus(-2.0 * pre_tanh))
    log_prob = -0.5 * noise.square() - LOG_SQRT_2_PI - log_std - correction
    return torch.tanh(pre_tanh), log_prob.sum(dim=-1)
