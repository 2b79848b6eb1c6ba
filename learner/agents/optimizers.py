"""AdamW with its moments allocated at once, the moving average of a target network, and norms for metrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from learner.config import LearnerConfig
from learner.scale.sharding import alike, total_norm


def adam_options(config: LearnerConfig, on_gpu: bool) -> dict[str, Any]:
    return {"lr": config.learning_rate, "fused": True, "capturable": on_gpu}


def adamw(module: nn.Module, config: LearnerConfig) -> torch.optim.Optimizer:
    """Return an AdamW optimiser for all parameters of a network."""
    groups = [{"params": kind} for kind in alike(module.parameters())]
    options = adam_options(config, next(module.parameters()).is_cuda)
    return with_moments(torch.optim.AdamW(groups, weight_decay=config.weight_decay, **options))


def with_moments(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Allocate the moments of an Adam optimiser now, not at its first step, so that a lack of memory shows at once."""
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
    """Move every parameter of the target by the fraction `polyak` towards the critic's. Observation statistics need no
    step: they are the same in all networks.
    """
    for slow, fast in zip(alike(target.parameters()), alike(critic.parameters()), strict=True):
        torch._foreach_lerp_(slow, fast, polyak)


def norms(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Return the global L2 norms of the gradients of a module's last step, and of its parameters after that step."""
    parameters = list(module.parameters())
    return {
        f"{name}_gradient_norm": total_norm(p.grad for p in parameters if p.grad is not None),
        f"{name}_parameter_norm": total_norm(p.detach() for p in parameters),
    }
