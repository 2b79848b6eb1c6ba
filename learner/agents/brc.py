"""One BRC update (spec section 2): critic, target, policy, temperature, in that order.

`update` is a function of (state, batch, noise): it draws no random numbers and reads no clock, so equal inputs give
equal outputs. It advances `state` in place, because a second copy of a billion parameters would be no favour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from learner.agents import categorical, tanh_normal
from learner.networks.footprint import NetworkSpec
from learner.networks.modules import Critic, Policy
from learner.scale.sharding import alike, total_norm


@dataclass(frozen=True)
class BRCSettings:
    """Constants of the update; the defaults are those of the reference implementation."""

    discount: float = 0.99
    polyak: float = 0.005
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    initial_temperature: float = 0.1
    target_entropy_per_action: float = -0.5
    value_limit: float = 10.0


class Batch(NamedTuple):
    """Transitions of B rows. `rewards` are normalised; `masks` is 0 where the next state is terminal, else 1; with n
    steps discount^(n - 1)."""

    observations: Tensor  # (B, observation)
    actions: Tensor  # (B, action)
    rewards: Tensor  # (B,)
    masks: Tensor  # (B,)
    next_observations: Tensor  # (B, observation)
    task_ids: Tensor  # (B,) int64


class Noise(NamedTuple):
    """Standard normal draws, each (B, action): for the next action in the target, for the action in the policy loss."""

    next: Tensor
    current: Tensor


@dataclass
class BRCState:
    """What an update reads and writes. `log_temperature` is a 0-d parameter."""

    critic: Critic
    target: Critic
    policy: Policy
    log_temperature: nn.Parameter
    critic_optimizer: torch.optim.Optimizer
    policy_optimizer: torch.optim.Optimizer
    temperature_optimizer: torch.optim.Optimizer

    def modules(self) -> dict[str, nn.Module]:
        return {"critic": self.critic, "target": self.target, "policy": self.policy}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "critic": self.critic_optimizer,
            "policy": self.policy_optimizer,
            "temperature": self.temperature_optimizer,
        }

    @property
    def actor(self) -> nn.Module:
        """What acts."""
        return self.policy

    def temperature(self) -> Tensor:
        return self.log_temperature.detach().exp()


def initial_state(
    spec: NetworkSpec,
    settings: BRCSettings,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    prepare: Callable[[nn.Module], None] = lambda module: None,
) -> BRCState:
    """Fresh networks from torch's global generator, the target an exact copy of the critic, optimisers at zero.

    `prepare` is called with every network, the target included, before its optimiser is made.
    """
    critic = Critic(spec).to(dtype=dtype, device=device)
    target = Critic(spec).to(dtype=dtype, device=device).requires_grad_(False)
    target.load_state_dict(critic.state_dict())
    policy = Policy(spec).to(dtype=dtype, device=device)
    for module in (critic, target, policy):
        prepare(module)
    log_temperature = nn.Parameter(torch.tensor(math.log(settings.initial_temperature), dtype=dtype, device=device))

    adam = torch.optim.Adam([log_temperature], betas=(0.5, 0.999), **adam_options(settings, log_temperature.is_cuda))
    return BRCState(
        critic,
        target,
        policy,
        log_temperature,
        adamw(critic, settings),
        adamw(policy, settings),
        with_moments(adam),
    )


def adam_options(settings: BRCSettings, on_gpu: bool) -> dict[str, Any]:
    return {"lr": settings.learning_rate, "fused": True, "capturable": on_gpu}


def adamw(module: nn.Module, settings: BRCSettings) -> torch.optim.Optimizer:
    """For all parameters of a network."""
    groups = [{"params": kind} for kind in alike(module.parameters())]
    options = adam_options(settings, next(module.parameters()).is_cuda)
    return with_moments(torch.optim.AdamW(groups, weight_decay=settings.weight_decay, **options))


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


def target_entropy(action_size: int, settings: BRCSettings) -> float:
    """Hbar = -A / 2 with A the largest action size over tasks."""
    return settings.target_entropy_per_action * action_size


def update(
    state: BRCState, batch: Batch, noise: Noise, settings: BRCSettings, diagnostics: bool = False
) -> tuple[BRCState, dict[str, Tensor]]:
    """Apply one gradient step and return (state, metrics), metrics being detached 0-d tensors on the state's device.

    The losses and the entropy are always reported; norms, which cost a pass over the parameters, and the mean of the
    Bellman target with `diagnostics`. Temperature in the metrics is the one used by this step, before it was updated.
    """
    metrics: dict[str, Tensor] = {}
    temperature = state.temperature()
    old_embedding = state.critic.embed(batch.task_ids)

    # 1. Critic: both heads learn the projected mean of the target heads' distributions.
    with torch.no_grad():
        detached = None if old_embedding is None else old_embedding.detach()
        target_distribution = bellman_target(state, batch, noise.next, detached, temperature, settings)
    logits = state.critic(batch.observations, batch.actions, old_embedding)
    critic_loss = categorical.cross_entropy(logits, target_distribution).mean(dim=-1).sum()
    state.critic_optimizer.zero_grad(set_to_none=True)
    critic_loss.backward()
    state.critic_optimizer.step()
    if diagnostics:
        metrics |= norms("critic", state.critic)
        atoms = categorical.support(logits.shape[-1], settings.value_limit, logits)
        metrics["target_mean"] = (target_distribution @ atoms).mean()

    # 2. Target: every leaf, LayerNorm and embeddings included, moves towards the new critic.
    follow(state.target, state.critic, settings.polyak)

    # 3. Policy, against the critic just updated. The embedding trains from the critic loss alone.
    with torch.no_grad():
        embedding = state.critic.embed(batch.task_ids)
    mean, log_std = state.policy(batch.observations, embedding)
    actions, log_prob = tanh_normal.sample(mean, log_std, noise.current)
    value, value_gradient = value_and_action_gradient(state.critic, batch.observations, actions, embedding, settings)
    entropy_loss = temperature * log_prob.mean()
    state.policy_optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward([entropy_loss, actions], [None, -value_gradient])
    state.policy_optimizer.step()
    if diagnostics:
        metrics |= norms("policy", state.policy)

    # 4. Temperature: d/dlog(alpha) of alpha (H - Hbar), with the entropy of the policy before its step.
    entropy = -log_prob.detach().mean()
    gap = entropy - target_entropy(actions.shape[-1], settings)
    state.log_temperature.grad = temperature * gap
    state.temperature_optimizer.step()

    metrics["critic_loss"] = critic_loss.detach()
    metrics["policy_loss"] = entropy_loss.detach() - value
    metrics["entropy"] = entropy
    metrics["temperature"] = temperature
    metrics["q_mean"] = value
    return state, metrics


@torch.no_grad()
def follow(target: nn.Module, critic: nn.Module, polyak: float) -> None:
    """Move every parameter of the target by a step of `polyak` towards the critic's."""
    for slow, fast in zip(alike(target.parameters()), alike(critic.parameters()), strict=True):
        torch._foreach_lerp_(slow, fast, polyak)


def bellman_target(
    state: BRCState,
    batch: Batch,
    noise: Tensor,
    embedding: Tensor | None,
    temperature: Tensor,
    settings: BRCSettings,
) -> Tensor:
    """(B, bins) target: mean over heads of the target's probabilities, every atom shifted by the entropy term.

    There is no minimum over heads: the reference has no pessimism.
    """
    mean, log_std = state.policy(batch.next_observations, embedding)
    next_actions, log_prob = tanh_normal.sample(mean, log_std, noise)
    logits = state.target(batch.next_observations, next_actions, state.target.embed(batch.task_ids))
    probabilities = torch.softmax(logits, dim=-1).mean(dim=0)
    atoms = categorical.support(logits.shape[-1], settings.value_limit, logits)
    shifted = atoms - (temperature * log_prob).unsqueeze(-1)
    targets = batch.rewards.unsqueeze(-1) + settings.discount * batch.masks.unsqueeze(-1) * shifted
    return categorical.project(probabilities, targets, settings.value_limit)


def value_and_action_gradient(
    critic: Critic, observations: Tensor, actions: Tensor, embedding: Tensor | None, settings: BRCSettings
) -> tuple[Tensor, Tensor]:
    """Batch mean of Q (mean over heads) and its gradient with respect to the actions (B, action).

    Asking for that gradient alone leaves the critic's parameters untouched and skips their weight products, a third of
    the work; what is compiled must be told so beforehand.
    """
    free_actions = actions.detach().requires_grad_()
    critic.requires_grad_(False)
    logits = critic(observations, free_actions, embedding)
    critic.requires_grad_()
    atoms = categorical.support(logits.shape[-1], settings.value_limit, logits)
    value = categorical.expectation(logits, atoms).mean()
    (gradient,) = torch.autograd.grad(value, [free_actions])
    return value.detach(), gradient


def norms(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Global L2 norms of the gradients of a module's last step, and of its parameters after it."""
    parameters = list(module.parameters())
    return {
        f"{name}_gradient_norm": total_norm(p.grad for p in parameters if p.grad is not None),
        f"{name}_parameter_norm": total_norm(p.detach() for p in parameters),
    }
