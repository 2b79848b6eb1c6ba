"""AdamW with the moving average of a target network, each in one call for all parameters, and norms for metrics."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from learner.config import LearnerConfig
from learner.networks import triton_switch
from learner.scale.flat import Flat, flatten, local
from learner.scale.sharding import average_over_ranks, total_norm
from learner.spec import ALONE, Ranks

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class AdamW:
    """AdamW (arXiv 1711.05101) with bias correction. Without weight decay it is Adam.

    All parameters share one counter of steps, and one kernel serves them all. torch.optim.AdamW has a counter for each
    parameter and sorts its parameters at each step: in an update of a small critic that took a sixth of the time.

    Attributes:
        flat: what it trains. A backward pass gives gradients to `flat.leaves`.
        state: for each parameter its moments, `exp_avg` and `exp_avg_sq`, and the counter `step`, 0-d float32. They are
            allocated here, so that a lack of memory shows at once.
        ranks: the ranks over which a step first averages the gradients that sharding has not averaged.
    """

    def __init__(
        self,
        flat: Flat,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = BETAS,
        target: Flat | None = None,
        polyak: float = 0.0,
    ) -> None:
        """Train the parameters in `flat`. Every step also moves each parameter of `target`, which has the same shapes,
        by the fraction `polyak` towards its new value."""
        self.flat, self.target = flat, target
        self.learning_rate, self.weight_decay, self.betas, self.polyak = learning_rate, weight_decay, betas, polyak
        self.ranks: Ranks = ALONE
        self.squares: dict[int, Tensor] = {}  # of gradients and parameters after the last step, if the step made them
        self.steps = torch.zeros((), dtype=torch.float32, device=flat.pieces[0].device)
        first, second = (None if flat.buffer is None else torch.zeros_like(flat.buffer) for _ in range(2))

        def moments(parameter: Tensor) -> tuple[Tensor, Tensor]:
            if first is None or second is None or isinstance(parameter, DTensor):
                return torch.zeros_like(parameter), torch.zeros_like(parameter)
            return flat.same_place(first, parameter), flat.same_place(second, parameter)

        self.moments = {id(leaf): moments(leaf.detach()) for leaf in flat.leaves}
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}
        for parameter in parameters:
            one, two = self.moments[id(parameter)] if id(parameter) in self.moments else moments(parameter)
            self.state[parameter] = {"step": self.steps, "exp_avg": one, "exp_avg_sq": two}

    def zero_grad(self) -> None:
        """Free all gradients. The next backward pass makes new ones."""
        for leaf in self.flat.leaves:
            leaf.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient, then the target."""
        moved = [leaf for leaf in self.flat.leaves if leaf.grad is not None]
        gradients = [leaf.grad for leaf in moved if leaf.grad is not None]
        average_over_ranks([gradient for gradient in gradients if not isinstance(gradient, DTensor)], self.ranks)
        self.steps += 1
        self.squares.clear()
        in_one = triton_switch.in_use and not self.steps.is_cpu
        if in_one and all(leaf.dtype is torch.float32 and not isinstance(leaf, DTensor) for leaf in moved):
            self._pass()
            return
        torch._fused_adamw_(
            local(moved),
            local(gradients),
            local([self.moments[id(leaf)][0] for leaf in moved]),
            local([self.moments[id(leaf)][1] for leaf in moved]),
            [],
            [self.steps] * len(moved),
            lr=self.learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )
        if self.target is not None:
            torch._foreach_lerp_(self.target.pieces, self.flat.pieces, self.polyak)
        self.refresh()

    def _pass(self) -> None:
        """Do the same for each leaf in one pass over its memory, and keep the squares for `norms`."""
        from learner.agents import adamw_triton

        rounded = {id(chain.leaf): chain.rounded for chain in self.flat.chains}
        slow = [] if self.target is None else self.target.leaves
        slow_rounded = {} if self.target is None else {id(chain.leaf): chain.rounded for chain in self.target.chains}
        for index, leaf in enumerate(self.flat.leaves):
            target, gradient = slow[index] if slow else None, leaf.grad
            if gradient is None:
                if target is not None:
                    target.lerp_(leaf, self.polyak)
                parameter = leaf.detach().square().sum()
                self.squares[id(leaf)] = torch.stack([torch.zeros_like(parameter), parameter])
                continue
            if gradient.stride() != leaf.stride():  # the pass takes numbers as they lie in memory
                gradient = torch.empty_like(leaf).copy_(gradient)
            self.squares[id(leaf)] = adamw_triton.step(
                leaf.detach(),
                gradient,
                *self.moments[id(leaf)],
                target,
                rounded.get(id(leaf)),
                slow_rounded.get(id(target)),
                self.steps,
                rate=self.learning_rate,
                betas=self.betas,
                epsilon=EPSILON,
                decay=self.weight_decay,
                polyak=self.polyak,
            )

    def refresh(self) -> None:
        """Round what chains multiply, after parameters, or those of the target, have changed."""
        for chain in (*self.flat.chains, *([] if self.target is None else self.target.chains)):
            chain.refresh()

    def norms(self, name: str) -> dict[str, Tensor]:
        """Return the global L2 norms of the gradients of the last step, and of the parameters after that step."""
        if self.squares:
            gradient, parameter = torch.stack(list(self.squares.values())).sum(dim=0).sqrt()
            return {f"{name}_gradient_norm": gradient, f"{name}_parameter_norm": parameter}
        gradients = [leaf.grad for leaf in self.flat.leaves if leaf.grad is not None]
        return {
            f"{name}_gradient_norm": total_norm(gradients),
            f"{name}_parameter_norm": total_norm(leaf.detach() for leaf in self.flat.leaves),
        }


def adamw(module: nn.Module, config: LearnerConfig, target: nn.Module | None = None) -> AdamW:
    """Return an optimiser for all parameters of a network, which also moves its target network, if it has one.

    Observation statistics of the target need no step: they are the same in all networks.
    """
    return AdamW(
        flatten(module),
        module.parameters(),
        config.learning_rate,
        config.weight_decay,
        target=None if target is None else flatten(target),
        polyak=config.polyak,
    )


def adam_of_scalar(scalar: nn.Parameter, learning_rate: float, betas: tuple[float, float]) -> AdamW:
    """Return an optimiser for one parameter, without weight decay."""
    return AdamW(Flat([scalar], [scalar.detach()], scalar.detach(), []), [scalar], learning_rate, betas=betas)
