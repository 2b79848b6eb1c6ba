"""Turns the policy into what actors read: one flat float32 array, and the names and shapes of its pieces."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from replay.policy_store import PolicyMessage


class Outgoing:
    """The parameters and buffers of what acts under their own names, and a critic's `embedding_table` as
    `task_embeddings`.

    They are as of now; a GPU hands them over when it has come that far.
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
        """Whether `message` would not wait."""
        return self.event is None or self.event.query()

    def message(self) -> PolicyMessage:
        if self.event is not None:
            self.event.synchronize()
        return PolicyMessage(self.version, self.time, self.layout, self.flat.numpy())
