"""The reward scale of each task, from what actors measure of its returns (docs/algorithm.md).

Replay carries the measures with the transitions, and the learner merges them here. Extremes of returns are merged by a
minimum and a maximum, so order and repeats do not matter. Moments of running returns are totals of each shard.
"""

from __future__ import annotations

from functools import reduce
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from learner.config import MEASURED
from learner.networks import triton_switch
from replay.store import moments

Kind = Literal["brc", "return-scale", "return-deviation", "none"]
PRIOR = 1e-4  # rows of variance 1 about 0 that a deviation begins with, as in SimbaV2
EPSILON = 1e-8  # is added to a variance


class RewardNormalizer:
    """Divides the raw rewards of each task by its scale.

    brc: the largest return, entropy bonus included, becomes `value_limit`. Before a task's first finished episode, its
    extremes are +inf and -inf, its scale is infinite and its rewards are 0.
    return-scale: the deviation of running returns becomes 1, or the largest of them `value_limit` if that divides by
    more (SimbaV2, arXiv 2502.15280).
    return-deviation: the deviation of running returns becomes 1, however large one of them is (XQC, arXiv 2509.25174).
    Before two returns of a task differ, its scale is infinite and its rewards are 0.
    none: rewards stay raw, and every scale is 1.
    """

    def __init__(
        self,
        num_tasks: int,
        discount: float,
        target_entropy: float,
        value_limit: float,
        device: torch.device | str = "cpu",
        kind: Kind = "brc",
    ) -> None:
        self.kind = kind
        self.minimum = torch.full((num_tasks,), torch.inf, device=device)
        self.maximum = torch.full((num_tasks,), -torch.inf, device=device)
        self.moments = torch.zeros((num_tasks, moments.SIZE), dtype=torch.float64, device=device)
        self.of_shards: dict[int, np.ndarray] = {}
        self.value_limit = value_limit
        # The entropy term of the return of a policy that always has half the target entropy.
        self.entropy_return = target_entropy / (2.0 * (1.0 - discount))

    def merge(self, minimum: Tensor, maximum: Tensor) -> None:
        """Merge (tasks,) float32 minima and maxima of discounted returns into the extremes."""
        torch.minimum(self.minimum, minimum, out=self.minimum)
        torch.maximum(self.maximum, maximum, out=self.maximum)

    def see(self, shard: int, found: np.ndarray) -> None:
        """Take the moments (tasks, 4) of all running returns that a shard was sent so far.

        A shard that has lost its content, and all shards after a resume without replay, begin again: until they were
        sent more than what is known, that counts.
        """
        if self.kind not in MEASURED:
            return
        held = self.of_shards.get(shard, np.zeros_like(found))
        self.of_shards[shard] = np.where(found[:, :1] >= held[:, :1], found, held)
        merged = reduce(moments.merge, self.of_shards.values())
        new = torch.from_numpy(merged).to(self.moments.device)
        self.moments.copy_(torch.where(new[:, :1] >= self.moments[:, :1], new, self.moments))

    def denominator(self, temperature: Tensor) -> Tensor:
        """Return the scale (tasks,) float32. That of brc is, at temperature alpha, (max(Gmax, |Gmin|) - alpha H / (2 (1
        - gamma))) / V. Without an entropy term, it is infinite while all returns are 0, so that rewards stay 0."""
        if self.kind == "none":
            return torch.ones_like(self.minimum)
        if self.kind == "return-deviation":
            count, _, squares, _ = self.moments.unbind(dim=1)
            return torch.where(squares > 0, (squares / count.clamp(min=1.0)).sqrt() + EPSILON, torch.inf).float()
        if self.kind == "return-scale":
            count, mean, squares, largest = self.moments.unbind(dim=1)
            total = count + PRIOR
            variance = (squares + PRIOR + mean.square() * count * PRIOR / total) / total
            return torch.maximum((variance + EPSILON).sqrt(), largest / self.value_limit).float()
        largest = torch.maximum(self.maximum, self.minimum.abs())
        scale = (largest - temperature * self.entropy_return) / self.value_limit
        return torch.where(scale > 0, scale, torch.inf)

    def normalize(self, rewards: Tensor, task_ids: Tensor, temperature: Tensor) -> Tensor:
        """Return raw rewards (...) of tasks (...) divided by the scale of their task, in the dtype of the rewards."""
        if self.kind == "none":
            return rewards
        if self.kind == "brc" and triton_switch.serves(rewards):
            from learner.agents import losses_triton

            extremes = self.minimum, self.maximum
            return losses_triton.normalize(
                rewards, task_ids, *extremes, temperature, self.entropy_return, self.value_limit
            )
        return rewards / self.denominator(temperature)[task_ids].to(rewards.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        found = {"minimum": self.minimum, "maximum": self.maximum}
        return found | {"moments": self.moments} if self.kind in MEASURED else found
