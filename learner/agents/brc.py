"""One BRC update (docs/algorithm.md): critic and target, policy, temperature, in that order.

`update` is a function of (state, batch, noise): it draws no random numbers and reads no clock, so equal inputs give
equal outputs. It changes `state` in place: a second copy of a billion parameters would double the memory.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from learner.agents import tanh_normal
from learner.agents.interface import Agent, Batch
from learner.agents.losses import backward, critic_loss, row_losses, target_over_heads, value_over_heads
from learner.agents.optimizers import AdamW, adam_of_scalar, adamw
from learner.agents.surgery import conflict, surgery_of
from learner.agents.task_gradients import Shares, by_rows, by_tasks, seen, shares
from learner.config import LearnerConfig
from learner.networks.architectures import Architecture
from learner.networks.layers import Statistics
from learner.networks.modules import Critic, Policy, use_statistics
from learner.networks.registry import architecture
from learner.networks.spec import NetworkSpec
from learner.scale.initial import initialise, initialise_like
from learner.scale.precision import made_in


@dataclass
class BRCState:
    """The state that an update reads and writes. `log_temperature` is a 0-d parameter."""

    critic: Critic
    target: Critic
    policy: Policy
    log_temperature: nn.Parameter
    critic_optimizer: AdamW  # moves the target too
    policy_optimizer: AdamW
    temperature_optimizer: AdamW
    spec: NetworkSpec

    @property
    def architecture(self) -> Architecture:
        return architecture(self.spec.network)

    def modules(self) -> dict[str, nn.Module]:
        return {"critic": self.critic, "target": self.target, "policy": self.policy}

    def optimizers(self) -> dict[str, AdamW]:
        return {
            "critic": self.critic_optimizer,
            "policy": self.policy_optimizer,
            "temperature": self.temperature_optimizer,
        }

    def scalars(self) -> dict[str, nn.Parameter]:
        return {"temperature": self.log_temperature}

    def table(self) -> nn.Parameter | None:
        return self.critic.task_embeddings

    def embedding_table(self) -> Tensor | None:
        return self.critic.embedding_table()

    def temperature(self) -> Tensor:
        return self.log_temperature.detach().exp()


def initial_state(
    spec: NetworkSpec,
    config: LearnerConfig,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    prepare: Callable[[nn.Module], None] = lambda module: None,
) -> BRCState:
    """Return new networks, the target an exact copy of the critic, and their optimisers, with moments of zero. The seed
    that torch's global generator was last given determines the initial values.

    `prepare` is called with every network, the target included, while it has no memory yet: it may divide it.
    """
    with made_in(dtype, "meta"):
        critic, policy = Critic(spec), Policy(spec)
    target = copy.deepcopy(critic).requires_grad_(False)
    for module in (critic, target, policy):
        prepare(module)
    initialise(critic, "critic", device)
    initialise(policy, "policy", device)
    initialise_like(target, critic, device)
    log_temperature = nn.Parameter(torch.full((), math.log(config.initial_temperature), dtype=dtype, device=device))
    return BRCState(
        critic,
        target,
        policy,
        log_temperature,
        adamw(critic, config, target),
        adamw(policy, config),
        adam_of_scalar(log_temperature, config),
        spec,
    )


def target_entropy(spec: NetworkSpec, config: LearnerConfig) -> float:
    """Return the target entropy: Hbar = -A / 2 by default, with A the largest action size over tasks."""
    return config.target_entropy_per_action * spec.action_size


def update(
    state: BRCState,
    batch: Batch,
    noise: Tensor,
    config: LearnerConfig,
    diagnostics: bool = False,
    orders: Tensor | None = None,
    moves: bool = True,
) -> dict[str, Tensor]:
    """Apply one gradient step and return metrics, detached 0-d tensors on the state's device.

    `noise` (2, B, action) holds standard normal draws: for the next action in the target, and for the action in the
    policy's loss.

    Policy and temperature move only with `moves`; without, only the critic's metrics are reported. With it, the losses
    and the entropy are always reported. Norms, which cost a pass over the parameters, and the mean of the Bellman
    target are reported with `diagnostics` only. The reported temperature is the one that this step used, before its
    update. `orders` (2, K, K) holds the random orders in which gradient surgery takes the tasks, for critic and policy;
    None without surgery.
    """
    if config.order == "critic-first":
        temperature = state.temperature()  # the old one throughout
        metrics = critic_step(state, batch, noise[0], temperature, config, diagnostics, orders)
        return metrics | policy_step(state, batch, noise[1], temperature, config, diagnostics, orders, moves)
    of_policy = policy_step(state, batch, noise[1], state.temperature(), config, diagnostics, orders, moves)
    return of_policy | critic_step(state, batch, noise[0], state.temperature(), config, diagnostics, orders)


def critic_step(
    state: BRCState,
    batch: Batch,
    noise: Tensor,
    temperature: Tensor,
    config: LearnerConfig,
    diagnostics: bool,
    orders: Tensor | None,
) -> dict[str, Tensor]:
    """Move the critic: all heads learn from one target. Then every parameter of the target network, norms and
    embeddings included, moves towards the new critic."""
    losses, target = critic_losses(state, batch, noise, temperature, config, "learned")
    weights, surgery = None, surgery_of(config)
    if surgery is not None and orders is not None:
        of = shares(batch.task_ids, state.spec.num_tasks, losses.dtype)
        weights = of.rows(surgery(critic_gram(state, batch, losses, target, of, config), orders[0]))
    state.critic_optimizer.zero_grad()
    metrics = {"critic_loss": backward(losses, weights)}
    state.critic_optimizer.step()
    if diagnostics:
        metrics |= state.critic_optimizer.norms("critic")
        metrics["target_mean"] = critic_loss(config).target_values(target).mean()
    return metrics


def critic_losses(
    state: BRCState,
    batch: Batch,
    noise: Tensor,
    temperature: Tensor,
    config: LearnerConfig,
    statistics: Statistics,
) -> tuple[Tensor, Tensor]:
    """Return the losses of rows (heads, B), and their target (B, n). A critic that normalises over the batch uses these
    statistics."""
    embedding = state.critic.embed(batch.task_ids)
    with torch.no_grad():
        detached = None if embedding is None else embedding.detach()
        next_actions, log_prob = next_action(state, batch, noise, detached)
        target = bellman_target(state, batch, next_actions, log_prob, temperature, config)
    use_statistics(state.critic.norms, statistics)
    if state.architecture.batch:
        outputs = state.critic(*joint_rows(batch, next_actions), twice(embedding))[:, : len(target)]
    else:
        outputs = state.critic(batch.observations, batch.actions, embedding)
    return row_losses(outputs, target, config), target


def critic_gram(
    state: BRCState,
    batch: Batch,
    losses: Tensor,
    target: Tensor,
    of: Shares,
    config: LearnerConfig,
    embeddings: bool = True,
) -> Tensor:
    """Return the Gram matrix (K, K) of the gradients of the tasks' critic losses, in the parameters of all heads and,
    if asked for, in the task embeddings. `losses` are those of `critic_losses`, whose graph is kept."""
    table = state.table() if embeddings else None
    if state.architecture.batch:
        leaves = [leaf for leaf in state.critic_optimizer.flat.leaves if embeddings or leaf is not state.table()]
        return by_tasks([losses], lambda weights: [weights.expand_as(losses)], of, leaves)
    with seen(state.critic) as layers:
        embedding = state.critic.embed(batch.task_ids)
        again = row_losses(state.critic(batch.observations, batch.actions, embedding), target, config)
    rows = None if table is None else embedding
    return by_rows(layers, [again], lambda weights: [weights.expand_as(again)], of, rows, table)


def conflicts(
    state: BRCState, batch: Batch, noise: Tensor, temperature: Tensor, config: LearnerConfig
) -> dict[str, Tensor]:
    """Return how much the gradients of tasks conflict in the critic's parameters, its task embeddings left out."""
    losses, target = critic_losses(state, batch, noise[0], temperature, config, "batch")
    of = shares(batch.task_ids, state.spec.num_tasks, losses.dtype)
    return conflict(critic_gram(state, batch, losses, target, of, config, embeddings=False))


def policy_step(
    state: BRCState,
    batch: Batch,
    noise: Tensor,
    temperature: Tensor,
    config: LearnerConfig,
    diagnostics: bool,
    orders: Tensor | None,
    moves: bool,
) -> dict[str, Tensor]:
    """Move the policy, against the present critic, and the temperature. Only the critic's loss trains the embedding."""
    joint, observations = state.architecture.joint_policy, batch.observations
    with torch.no_grad():
        embedding = state.critic.embed(batch.task_ids)
    use_statistics(state.policy.norms, "learned")
    if not moves:
        if state.policy.norms and not joint:
            with torch.no_grad():
                state.policy(observations, embedding)
        return {}
    if joint:
        mean, log_std = state.policy(torch.cat((observations, batch.next_observations)), twice(embedding))
        mean, log_std = mean[: len(noise)], log_std[: len(noise)]
    else:
        mean, log_std = state.policy(observations, embedding)
    actions, log_prob = tanh_normal.sample(mean, log_std, noise)
    value, value_gradient = value_and_action_gradient(state, observations, actions, embedding, config)
    entropy_loss = temperature * log_prob.mean()
    state.policy_optimizer.zero_grad()
    if surgery_of(config) is None or orders is None:
        torch.autograd.backward([entropy_loss, actions], [None, -value_gradient])
    else:
        policy_surgery(state, batch, embedding, noise, [log_prob, actions], value_gradient, temperature, config, orders)
    state.policy_optimizer.step()

    # d/dlog(alpha) of alpha (H - Hbar), with the entropy of the policy before its step.
    entropy = -log_prob.detach().mean()
    gap = entropy - config.target_entropy_per_action * actions.shape[-1]
    state.log_temperature.grad = temperature * gap
    state.temperature_optimizer.step()
    metrics = {
        "policy_loss": entropy_loss.detach() - value,
        "entropy": entropy,
        "temperature": temperature,
        "q_mean": value,
    }
    return metrics | state.policy_optimizer.norms("policy") if diagnostics else metrics


def policy_surgery(
    state: BRCState,
    batch: Batch,
    embedding: Tensor | None,
    noise: Tensor,
    outputs: list[Tensor],
    value_gradient: Tensor,
    temperature: Tensor,
    config: LearnerConfig,
    orders: Tensor,
) -> None:
    """Set the policy's gradients after surgery. `outputs` are the log-density and the actions, with their graph."""
    surgery, rows = surgery_of(config), len(noise)
    assert surgery is not None

    def gradients(weights: Tensor) -> list[Tensor]:
        return [temperature * weights, value_gradient * (-rows * weights[:, None])]

    of = shares(batch.task_ids, state.spec.num_tasks, noise.dtype)
    if state.architecture.batch:
        gram = by_tasks(outputs, gradients, of, state.policy_optimizer.flat.leaves)
    else:
        with seen(state.policy) as layers:
            mean, log_std = state.policy(batch.observations, embedding)
            actions, log_prob = tanh_normal.sample(mean, log_std, noise)
        gram = by_rows(layers, [log_prob, actions], gradients, of)
    torch.autograd.backward(outputs, gradients(of.rows(surgery(gram, orders[1]))))


def next_action(state: BRCState, batch: Batch, noise: Tensor, embedding: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the policy's actions (B, action) in the next states and their log-density (B,)."""
    use_statistics(state.policy.norms, "running")
    mean, log_std = state.policy(batch.next_observations, embedding)
    return tanh_normal.sample(mean, log_std, noise)


def bellman_target(
    state: BRCState,
    batch: Batch,
    next_actions: Tensor,
    log_prob: Tensor,
    temperature: Tensor,
    config: LearnerConfig,
) -> Tensor:
    """Return the critic's target (B, n), which its loss computes from the target network's outputs and the entropy."""
    embedding, loss = state.target.embed(batch.task_ids), critic_loss(config)
    use_statistics(state.target.norms, "batch")
    if state.architecture.batch:
        outputs = state.target(*joint_rows(batch, next_actions), twice(embedding))[:, len(log_prob) :]
    else:
        outputs = state.target(batch.next_observations, next_actions, embedding)
    chosen = target_over_heads(loss, outputs, config)
    return loss.target(chosen, batch.rewards, config.discount * batch.masks, temperature * log_prob)


def joint_rows(batch: Batch, next_actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return observations and actions (2B, size): those of the transitions, then those of the next states."""
    return torch.cat((batch.observations, batch.next_observations)), torch.cat((batch.actions, next_actions))


def twice(embedding: Tensor | None) -> Tensor | None:
    """Return the embeddings of joint rows; None if there are none."""
    return None if embedding is None else torch.cat((embedding, embedding))


def value_and_action_gradient(
    state: BRCState, observations: Tensor, actions: Tensor, embedding: Tensor | None, config: LearnerConfig
) -> tuple[Tensor, Tensor]:
    """Return the batch mean of Q (over heads the mean or the least) and its gradient with respect to the actions (B,
    action).

    The critic's parameters get no gradient, which skips a third of the work, the products for the weights' gradients.
    `requires_grad_` is set before the forward pass because a chain decides then what it computes.
    """
    free_actions = actions.detach().requires_grad_()
    for leaf in state.critic_optimizer.flat.leaves:
        leaf.requires_grad_(False)
    use_statistics(state.critic.norms, "running")
    outputs = state.critic(observations, free_actions, embedding)
    for leaf in state.critic_optimizer.flat.leaves:
        leaf.requires_grad_()
    value = value_over_heads(critic_loss(config).values(outputs), config).mean()
    (gradient,) = torch.autograd.grad(value, [free_actions])
    return value.detach(), gradient


def modules(spec: NetworkSpec) -> dict[str, nn.Module]:
    return {"critic": Critic(spec), "target": Critic(spec), "policy": Policy(spec)}


AGENT = Agent(
    initial_state=initial_state,
    update=update,
    draws=2,
    modules=modules,
    target_entropy=target_entropy,
    conflicts=conflicts,
)
