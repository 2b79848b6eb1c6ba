"""Turns the policy into a message for actors: one flat float32 array, and the names and shapes of its pieces."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from replay.policy_store import PolicyMessage


class Outgoing:
    """A copy of the parameters and buffers of the acting network under their own names, and of the normalised table as
    `task_embeddings`.

    The values are those at construction. A GPU makes the copy after the work that is queued on it.
    """

    @torch.no_grad()
    def __init__(self, policy: nn.Module, table: Tensor | None, version: int) -> None:
        named: dict[str, Tensor] = policy.state_dict()
        if table is not None:
            named["task_embeddings"] = table
        self.version = version
        self.time = time.monotonic()
        self.layout = tuple((name, tuple(tensor.shape)) for name, tensor in named.items())
        flat = torch.cat([tensor.reshape(-1).float() for tensor in named.values()])
        self.event = torch.cuda.Event() if flat.is_cuda else None
        self.flat = torch.empty_like(flat, device="cpu", pin_memory=True) if flat.is_cuda else flat
        if self.event is not None:
            self.flat.copy_(flat, non_blocking=True)
            self.event.record()

    def ready(self) -> bool:
        """Whether `message` would return without waiting."""
        return self.event is None or self.event.query()

    def message(self) -> PolicyMessage:
        if self.event is not None:
            self.event.synchronize()
        return PolicyMessage(self.version, self.time, self.layout, self.flat.numpy())
