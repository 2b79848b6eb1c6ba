"""BRC for discrete actions: the same critic, with a row of bins for every action, and no policy beside it.

The paper publishes no code for Atari. Kept from BRC: the ensemble of BroNets and its regularisation, task embeddings,
categorical returns whose targets are the mean of the target heads' probabilities, the reward normaliser, the moving
average. Where an entropy term and a policy were, what the field does takes their place: the next action is the best
one by the online critic (double Q-learning, as in Rainbow and BBF), rewards may be summed over n steps, and acting is
epsilon-greedy. Images go through one Impala encoder that the heads share.

Tasks share one set of actions, as large as the largest; an action that a task does not have is never chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from learner.agents import categorical
from learner.agents.brc import Batch, BRCSettings, adamw, follow, norms
from learner.networks.encoder import Encoder
from learner.networks.footprint import NetworkSpec
from learner.networks.modules import BroNet, normalized, task_embeddings


class DiscreteCritic(nn.Module):
    """An ensemble of BroNets over (observation or features of an image, task embedding)."""

    available: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec.image[0], spec.encoder_width) if spec.image else None
        inputs = spec.features + spec.embedding_inputs
        outputs = spec.most_actions * spec.num_bins
        self.heads = nn.ModuleList(BroNet(inputs, spec.width, spec.depth, outputs) for _ in range(spec.heads))
        self.task_embeddings = task_embeddings(spec)
        counts = torch.tensor(spec.num_actions)
        available = torch.arange(spec.most_actions) < counts[:, None]
        self.register_buffer("available", available, persistent=False)

    def embedding_table(self) -> Tensor | None:
        """(tasks, embedding), rows scaled to a norm of one; None for a single task."""
        return None if self.task_embeddings is None else normalized(self.task_embeddings, self.spec.embedding_norm)

    def forward(self, observations: Tensor, task_ids: Tensor) -> Tensor:
        """Logits (heads, B, actions, bins) for (B, observation), of images in [0, 1]."""
        x = observations
        if self.encoder is not None:
            x = self.encoder(x.view(len(x), *self.spec.image))
        table = self.embedding_table()
        if table is not None:
            x = torch.cat((x, table[task_ids].to(x.dtype)), dim=-1)
        logits = torch.stack([head(x) for head in self.heads])
        return logits.view(len(self.heads), len(x), self.spec.most_actions, self.spec.num_bins)

    def values(self, logits: Tensor, task_ids: Tensor, atoms: Tensor) -> Tensor:
        """(B, actions): mean over heads of what each action is worth; -inf for those that a task does not have."""
        values = categorical.expectation(logits, atoms).mean(dim=0)
        return values.masked_fill(~self.available[task_ids], -torch.inf)


@dataclass
class DiscreteState:
    """What an update reads and writes."""

    critic: DiscreteCritic
    target: DiscreteCritic
    critic_optimizer: torch.optim.Optimizer

    def modules(self) -> dict[str, nn.Module]:
        return {"critic": self.critic, "target": self.target}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"critic": self.critic_optimizer}

    @property
    def actor(self) -> nn.Module:
        """What acts: the critic itself."""
        return self.critic

    def temperature(self) -> Tensor:
        """None is needed: rewards are scaled by returns alone."""
        return torch.zeros((), device=self.critic.available.device)


def initial_state(
    spec: NetworkSpec,
    settings: BRCSettings,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    prepare: Callable[[nn.Module], None] = lambda module: None,
) -> DiscreteState:
    """Fresh networks from torch's global generator, the target an exact copy of the critic; as brc.initial_state."""
    critic = DiscreteCritic(spec).to(dtype=dtype, device=device)
    target = DiscreteCritic(spec).to(dtype=dtype, device=device).requires_grad_(False)
    target.load_state_dict(critic.state_dict())
    for module in (critic, target):
        prepare(module)
    return DiscreteState(critic, target, adamw(critic, settings))


def update(
    state: DiscreteState, batch: Batch, settings: BRCSettings, diagnostics: bool = False
) -> tuple[DiscreteState, dict[str, Tensor]]:
    """Apply one gradient step, in place; draws no random numbers. Metrics as in brc.update.

    `batch.actions` holds the index of the action in its first column.
    """
    dtype = batch.rewards.dtype
    observations, following = (floats(array, dtype) for array in (batch.observations, batch.next_observations))
    target_distribution = bellman_target(state, batch, following, settings)
    logits = state.critic(observations, batch.task_ids)
    taken = batch.actions[:, 0].long()
    chosen = logits[:, torch.arange(len(taken), device=taken.device), taken]
    critic_loss = categorical.cross_entropy(chosen, target_distribution).mean(dim=-1).sum()
    state.critic_optimizer.zero_grad(set_to_none=True)
    critic_loss.backward()
    state.critic_optimizer.step()
    metrics = {"critic_loss": critic_loss.detach()}
    atoms = categorical.support(logits.shape[-1], settings.value_limit, logits)
    metrics["q_mean"] = categorical.expectation(chosen.detach(), atoms).mean()
    if diagnostics:
        metrics |= norms("critic", state.critic)
        metrics["target_mean"] = (target_distribution @ atoms).mean()
    follow(state.target, state.critic, settings.polyak)
    return state, metrics


@torch.no_grad()
def bellman_target(state: DiscreteState, batch: Batch, following: Tensor, settings: BRCSettings) -> Tensor:
    """(B, bins): mean over heads of the target's probabilities for the action that is best by the online critic."""
    online = state.critic(following, batch.task_ids)
    atoms = categorical.support(online.shape[-1], settings.value_limit, online)
    best = state.critic.values(online, batch.task_ids, atoms).argmax(dim=-1)
    logits = state.target(following, batch.task_ids)
    rows = torch.arange(len(best), device=best.device)
    probabilities = torch.softmax(logits[:, rows, best], dim=-1).mean(dim=0)
    targets = batch.rewards.unsqueeze(-1) + settings.discount * batch.masks.unsqueeze(-1) * atoms
    return categorical.project(probabilities, targets, settings.value_limit)


def floats(observations: Tensor, dtype: torch.dtype) -> Tensor:
    """Images, which come as bytes, in [0, 1]; everything else as it is."""
    return observations.to(dtype) / 255 if observations.dtype == torch.uint8 else observations
