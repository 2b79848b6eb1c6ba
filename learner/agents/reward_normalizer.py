"""The reward scale of each task, from the running extremes of discounted returns (docs/algorithm.md).

Actors compute the extremes of each finished episode, replay carries them with the transitions, and the learner merges
them here. Merging is a minimum and a maximum, so order and repeats do not matter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learner.networks import triton_switch


class RewardNormalizer:
    """Divides the raw rewards of a task so that its largest return, entropy bonus included, becomes `value_limit`.

    Before a task's first finished episode, its extremes are +inf and -inf, its scale is infinite and its rewards are 0.
    """

    def __init__(
        self,
        num_tasks: int,
        discount: float,
        target_entropy: float,
        value_limit: float,
        device: torch.device | str = "cpu",
        scales: bool = True,
    ) -> None:
        """Without `scales` the rewards stay raw, and every scale is 1."""
        self.scales = scales
        self.minimum = torch.full((num_tasks,), torch.inf, device=device)
        self.maximum = torch.full((num_tasks,), -torch.inf, device=device)
        self.value_limit = value_limit
        # The entropy term of the return of a policy that always has half the target entropy.
        self.entropy_return = target_entropy / (2.0 * (1.0 - discount))

    def merge(self, minimum: Tensor, maximum: Tensor) -> None:
        """Merge (tasks,) float32 minima and maxima of discounted returns into the extremes."""
        torch.minimum(self.minimum, minimum, out=self.minimum)
        torch.maximum(self.maximum, maximum, out=self.maximum)

    def denominator(self, temperature: Tensor) -> Tensor:
        """Return the scale (tasks,) at temperature alpha: (max(Gmax, |Gmin|) - alpha H / (2 (1 - gamma))) / V.

        Without an entropy term, the scale is infinite while all returns are 0, so that rewards stay 0.
        """
        if not self.scales:
            return torch.ones_like(self.minimum)
        largest = torch.maximum(self.maximum, self.minimum.abs())
        scale = (largest - temperature * self.entropy_return) / self.value_limit
        return torch.where(scale > 0, scale, torch.inf)

    def normalize(self, rewards: Tensor, task_ids: Tensor, temperature: Tensor) -> Tensor:
        """Return raw rewards (...) of tasks (...) divided by the scale of their task, in the dtype of the rewards."""
        if not self.scales:
            return rewards
        if triton_switch.serves(rewards):
            from learner.agents import losses_triton

            extremes = self.minimum, self.maximum
            return losses_triton.normalize(
                rewards, task_ids, *extremes, temperature, self.entropy_return, self.value_limit
            )
        return rewards / self.denominator(temperature)[task_ids].to(rewards.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        return {"minimum": self.minimum, "maximum": self.maximum}
