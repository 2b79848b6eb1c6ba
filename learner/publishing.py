"""Turns the policy into what actors read: one flat float32 array, and the names and shapes of its pieces."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from learner.networks import Critic, Policy
from replay.policy_store import PolicyMessage


@torch.no_grad()
def message(policy: Policy, critic: Critic, version: int) -> PolicyMessage:
    """The policy's parameters under their own names, and the critic's normalised rows as `task_embeddings`."""
    named: dict[str, Tensor] = dict(policy.named_parameters())
    table = critic.embedding_table()
    if table is not None:
        named["task_embeddings"] = table
    flat = torch.cat([tensor.reshape(-1).float() for tensor in named.values()]).cpu().numpy()
    layout = tuple((name, tuple(tensor.shape)) for name, tensor in named.items())
    return PolicyMessage(version, time.time(), layout, flat)
