"""What moves networks: AdamW with its moments from the start, the step of a target towards its network, and norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from learner.config import LearnerConfig
from learner.scale.sharding import alike, total_norm


def adam_options(config: LearnerConfig, on_gpu: bool) -> dict[str, Any]:
    return {"lr": config.learning_rate, "fused": True, "capturable": on_gpu}


def adamw(module: nn.Module, config: LearnerConfig) -> torch.optim.Optimizer:
    """For all parameters of a network."""
    groups = [{"params": kind} for kind in alike(module.parameters())]
    options = adam_options(config, next(module.parameters()).is_cuda)
    return with_moments(torch.optim.AdamW(groups, weight_decay=config.weight_decay, **options))


def with_moments(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """An Adam that has its moments from the start, not from its first step: memory is taken at once or not at all."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    return optimizer


@torch.no_grad()
def follow(target: nn.Module, critic: nn.Module, polyak: float) -> None:
    """Move every parameter of the target by a step of `polyak` towards the critic's. Statistics of observations need no
    step: all networks are given the same.
    """
    for slow, fast in zip(alike(target.parameters()), alike(critic.parameters()), strict=True):
        torch._foreach_lerp_(slow, fast, polyak)


def norms(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Global L2 norms of the gradients of a module's last step, and of its parameters after it."""
    parameters = list(module.parameters())
    return {
        f"{name}_gradient_norm": total_norm(p.grad for p in parameters if p.grad is not None),
        f"{name}_parameter_norm": total_norm(p.detach() for p in parameters),
    }
