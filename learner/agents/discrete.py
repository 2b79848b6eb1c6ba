"""BRC for discrete actions: the same critic, with a row of bins for every action, and no policy network.

The paper publishes no code for Atari. Kept from BRC are the ensemble of BroNets and its regularisation, task
embeddings, categorical returns whose targets are the mean of the target heads' probabilities, the reward normaliser and
the moving average. The entropy term and the policy are replaced by common practice: the next action is the best one by
the online critic (double Q-learning, as in Rainbow and BBF), rewards may be summed over n steps, and acting is
epsilon-greedy. Images go through one Impala encoder that the heads share.

Tasks share one set of actions, as large as the largest set of a task. Actions that a task does not have are never
chosen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from learner.agents.interface import Agent, Batch
from learner.agents.losses import backward, critic_loss, row_losses, target_over_heads
from learner.agents.optimizers import AdamW, adamw
from learner.agents.surgery import conflict, surgery_of
from learner.agents.task_gradients import by_tasks, shares
from learner.config import LearnerConfig
from learner.networks.modules import DiscreteCritic
from learner.networks.spec import NetworkSpec
from learner.scale.initial import initialise, initialise_like
from learner.scale.precision import made_in


def action_values(critic: DiscreteCritic, values: Tensor, task_ids: Tensor) -> Tensor:
    """Return (B, actions), the value of each action: the mean over heads of `values` (H, B, actions); -inf for actions
    that the task does not have."""
    return values.mean(dim=0).masked_fill(~critic.available[task_ids], -torch.inf)


@dataclass
class DiscreteState:
    """The state that an update reads and writes."""

    critic: DiscreteCritic
    target: DiscreteCritic
    critic_optimizer: AdamW  # moves the target too

    def modules(self) -> dict[str, nn.Module]:
        return {"critic": self.critic, "target": self.target}

    def optimizers(self) -> dict[str, AdamW]:
        return {"critic": self.critic_optimizer}

    def scalars(self) -> dict[str, nn.Parameter]:
        return {}

    def table(self) -> nn.Parameter | None:
        return self.critic.task_embeddings

    def embedding_table(self) -> Tensor | None:
        return self.critic.embedding_table()

    def temperature(self) -> Tensor:
        """Return 0: rewards have no entropy term, and are scaled by returns alone."""
        return torch.zeros((), device=self.critic.available.device)


def initial_state(
    spec: NetworkSpec,
    config: LearnerConfig,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    prepare: Callable[[nn.Module], None] = lambda module: None,
) -> DiscreteState:
    """Return new networks, the target an exact copy of the critic, and the optimiser, like `brc.initial_state`."""
    with made_in(dtype, "meta"):
        critic = DiscreteCritic(spec)
    target = copy.deepcopy(critic).requires_grad_(False)
    for module in (critic, target):
        prepare(module)
    initialise(critic, "critic", device)
    initialise_like(target, critic, device)
    return DiscreteState(critic, target, adamw(critic, config, target))


def update(
    state: DiscreteState,
    batch: Batch,
    noise: Tensor,
    config: LearnerConfig,
    diagnostics: bool = False,
    orders: Tensor | None = None,
    moves: bool = True,
) -> dict[str, Tensor]:
    """Apply one gradient step, in place, and return metrics like those of `brc.update`.

    `noise` and `moves` are not used. The first column of `batch.actions` holds the index of the action.
    """
    losses, target, values = critic_losses(state, batch, config)
    weights, surgery = None, surgery_of(config)
    if surgery is not None and orders is not None:
        of = shares(batch.task_ids, len(state.critic.available), losses.dtype)
        leaves = state.critic_optimizer.flat.leaves
        gram = by_tasks([losses], lambda rows: [rows.expand_as(losses)], of, leaves)
        weights = of.rows(surgery(gram, orders[0]))
    state.critic_optimizer.zero_grad()
    metrics = {"critic_loss": backward(losses, weights), "q_mean": values.mean()}
    state.critic_optimizer.step()
    if diagnostics:
        metrics |= state.critic_optimizer.norms("critic")
        metrics["target_mean"] = critic_loss(config).target_values(target).mean()
    return metrics


def critic_losses(state: DiscreteState, batch: Batch, config: LearnerConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Return the losses of rows (heads, B), their target (B, n), and the values (heads, B) of the actions taken."""
    dtype = batch.rewards.dtype
    observations, following = (floats(array, dtype) for array in (batch.observations, batch.next_observations))
    loss = critic_loss(config)
    target = bellman_target(state, batch, following, config)
    outputs = state.critic(observations, batch.task_ids)
    taken = batch.actions[:, 0].long()
    chosen = outputs[:, torch.arange(len(taken), device=taken.device), taken]
    return row_losses(chosen, target, config), target, loss.values(chosen.detach())


def conflicts(
    state: DiscreteState, batch: Batch, noise: Tensor, temperature: Tensor, config: LearnerConfig
) -> dict[str, Tensor]:
    """Return how much the gradients of tasks conflict in the critic's parameters, its task embeddings left out."""
    losses, _, _ = critic_losses(state, batch, config)
    of = shares(batch.task_ids, len(state.critic.available), losses.dtype)
    leaves = [leaf for leaf in state.critic_optimizer.flat.leaves if leaf is not state.table()]
    return conflict(by_tasks([losses], lambda rows: [rows.expand_as(losses)], of, leaves))


@torch.no_grad()
def bellman_target(state: DiscreteState, batch: Batch, following: Tensor, config: LearnerConfig) -> Tensor:
    """Return the critic's target (B, n), from the target network's outputs for the best action by the online critic."""
    loss = critic_loss(config)
    online = state.critic(following, batch.task_ids)
    best = action_values(state.critic, loss.values(online), batch.task_ids).argmax(dim=-1)
    outputs = state.target(following, batch.task_ids)
    rows = torch.arange(len(best), device=best.device)
    chosen = target_over_heads(loss, outputs[:, rows, best], config)
    return loss.target(chosen, batch.rewards, config.discount * batch.masks, None)


def floats(observations: Tensor, dtype: torch.dtype) -> Tensor:
    """Return images, which arrive as uint8, scaled to [0, 1], and all other observations unchanged."""
    return observations.to(dtype) / 255 if observations.dtype == torch.uint8 else observations


def modules(spec: NetworkSpec) -> dict[str, nn.Module]:
    return {"critic": DiscreteCritic(spec), "target": DiscreteCritic(spec)}


AGENT = Agent(
    initial_state=initial_state,
    update=update,
    draws=0,
    modules=modules,
    target_entropy=lambda spec, config: 0.0,
    conflicts=conflicts,
)
