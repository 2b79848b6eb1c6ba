"""The result of training on some batches, which a GPU may still be computing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from learner.nonfinite import NonFinite, way_out
from replay.store.rows import Batches


class Trained:
    """The result of one call of `train`, which a GPU may still be computing.

    Attributes:
        reward_scale: the divisor of each task's rewards; inf before its first finished episode. Set by `finish`.
    """

    def __init__(self, metrics: dict[str, Tensor], reward_scale: Tensor, update: int) -> None:
        self.names = list(metrics)
        self.update = update
        self.reward_scale: list[float] = []
        values = torch.cat([torch.stack(list(metrics.values())), reward_scale])
        on_gpu = values.device.type != "cpu"
        self.event = torch.get_device_module(values.device).Event() if on_gpu else None
        self.values = torch.empty_like(values, device="cpu", pin_memory=on_gpu)
        self.values.copy_(values, non_blocking=True)
        if self.event is not None:
            self.event.record()

    def finish(self) -> dict[str, float]:
        """Wait until the updates are done and return the metrics of the last. Then the batches may be overwritten.

        Raises NonFinite when a loss is not finite.
        """
        if self.event is not None:
            self.event.synchronize()
        found = self.values.tolist()
        self.reward_scale = found[len(self.names) :]
        values: dict[str, float] = dict(zip(self.names, found, strict=False))
        for name in ("critic_loss", "policy_loss"):
            if not math.isfinite(values.get(name, 0.0)):
                raise NonFinite(f"{name} became {values[name]} at update {self.update} or a few before")
        return values


def finish(trained: Trained, batches: Batches, folder: Path) -> dict[str, float]:
    """Call `Trained.finish`. If a loss is not finite, save the batches that led to it in the folder, for inspection."""
    try:
        return trained.finish()
    except NonFinite as error:
        file = folder / f"nonfinite-{trained.update}.npz"
        where = f"are in {file}"
        try:
            np.savez_compressed(file, **batches._asdict())
        except OSError as unwritten:  # the error to report is still the loss
            where = f"could not be written ({unwritten})"
        raise NonFinite(f"{error}; the batches that led there {where}; {way_out(batches)}") from None
