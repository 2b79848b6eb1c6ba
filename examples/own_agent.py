"""06: an agent of your own: `python -m examples.own_agent`.

A Description says which networks the agent has and how it acts. An Agent trains the networks. Another package registers
its Description by an entry point of the group brc.agents; CONTRIBUTING.md says how.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from examples.short import config, trained
from learner.agents import discrete
from learner.agents.catalogue import AGENTS, Description, discrete_brc
from learner.agents.discrete import DiscreteState, action_values, floats
from learner.agents.interface import Batch
from learner.agents.losses import backward, critic_loss
from learner.config import LearnerConfig

TASK = "gymnasium/CartPole-v1"
TEMPERATURE = 0.1  # of the softmax over values, which are in [-10, 10]


def update(
    state: DiscreteState,
    batch: Batch,
    noise: Tensor,
    config: LearnerConfig,
    diagnostics: bool = False,
    orders: Tensor | None = None,
    moves: bool = True,
) -> dict[str, Tensor]:
    """Make one update of Expected Sarsa with a softmax policy. The value of the next state is the policy's mean over
    actions; discrete BRC takes the best action instead."""
    loss, dtype = critic_loss(config), batch.rewards.dtype
    rows = torch.arange(len(batch.rewards), device=batch.rewards.device)
    with torch.no_grad():
        outputs = state.target(floats(batch.next_observations, dtype), batch.task_ids)
        values = action_values(state.target, loss.values(outputs), batch.task_ids)
        drawn = torch.softmax(values / TEMPERATURE, dim=-1)
        targets = [
            loss.target(outputs[:, :, action], batch.rewards, config.discount * batch.masks, None)
            for action in range(values.shape[-1])
        ]
        target = (torch.stack(targets, dim=1) * drawn[:, :, None]).sum(dim=1)
    outputs = state.critic(floats(batch.observations, dtype), batch.task_ids)
    chosen = outputs[:, rows, batch.actions[:, 0].long()]
    state.critic_optimizer.zero_grad()
    mean_loss = backward(loss.rows(chosen, target))
    state.critic_optimizer.step()
    return {"critic_loss": mean_loss, "q_mean": loss.values(chosen.detach()).mean()}


AGENT = replace(discrete.AGENT, update=update)
EXPECTED_SARSA = Description("discrete", discrete_brc, "critic", "greedy", "examples.own_agent:AGENT")


def main(folder: Path) -> dict[str, float | None]:
    """Return the mean returns of the random policy and after training."""
    AGENTS["expected-sarsa"] = EXPECTED_SARSA
    random, learned = trained(config(folder, (TASK,), steps=2000, agent="expected-sarsa"))
    return {"random": random.mean_return[TASK], "learned": learned.mean_return[TASK]}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(main(Path(temporary)))
