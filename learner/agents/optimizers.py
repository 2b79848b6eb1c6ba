"""AdamW with the moving average of a target network, each in one call for all parameters, and norms for metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from learner.config import LearnerConfig
from learner.networks import triton_switch
from learner.networks.layers import Projected, projected
from learner.networks.parallel import local
from learner.scale.flat import Flat, flatten
from learner.scale.sharding import Meshes, average, average_over_ranks, like, total_norm
from learner.spec import ALONE, Ranks

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass(frozen=True)
class Schedule:
    """How a learning rate falls, from 1 times itself to `final`, over a number of steps. Then it stays."""

    kind: Literal["constant", "linear", "cosine"] = "constant"
    final: float = 1.0
    steps: int = 1

    def at(self, made: Tensor) -> Tensor | None:
        """Return the fraction of the learning rate after this many steps, 0-d, on their device; None if constant."""
        if self.kind == "constant":
            return None
        progress = (made / self.steps).clamp(max=1.0)
        left = 1.0 - progress if self.kind == "linear" else 0.5 + 0.5 * torch.cos(math.pi * progress)
        return self.final + (1.0 - self.final) * left


CONSTANT = Schedule()


def schedule(config: LearnerConfig) -> Schedule:
    """Return the schedule of a configuration. Raises ValueError where it has no length, which a run's plan sets."""
    if config.schedule != "constant" and not config.schedule_updates:
        raise ValueError(f"--learner.schedule {config.schedule} without a run: give --learner.schedule-updates")
    return Schedule(config.schedule, config.final_rate, config.schedule_updates)


class AdamW:
    """AdamW (arXiv 1711.05101) with bias correction. Without weight decay it is Adam.

    All parameters share one counter of steps, and one kernel serves them all. torch.optim.AdamW has a counter for each
    parameter and sorts its parameters at each step: in an update of a small critic that took a sixth of the time.

    Attributes:
        flat: what it trains. A backward pass gives gradients to `flat.leaves`.
        state: for each parameter its moments, `exp_avg` and `exp_avg_sq`, and the counter `step`, 0-d float32. They are
            allocated here, so that a lack of memory shows at once.
        ranks: the ranks over which a step first averages the gradients that sharding has not averaged.
        meshes: the groups among them that share a network out; None where every rank holds it whole.
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
        epsilon: float = EPSILON,
        schedule: Schedule = CONSTANT,
        clip: float = 0.0,
        projected: Sequence[Projected] = (),
    ) -> None:
        """Train the parameters in `flat`. Every step also moves each parameter of `target`, which has the same shapes,
        by the fraction `polyak` towards its new value, after the layers in `projected` were projected.

        `schedule` says how the learning rate falls with the steps. `clip` is the largest global norm of a gradient; 0
        does not clip.
        """
        self.flat, self.target = flat, target
        self.epsilon, self.schedule, self.clip, self.projected = epsilon, schedule, clip, list(projected)
        self.learning_rate, self.weight_decay, self.betas, self.polyak = learning_rate, weight_decay, betas, polyak
        self.ranks: Ranks = ALONE
        self.meshes: Meshes | None = None
        self.unclipped: Tensor | None = None  # the norm of the gradients of the last step, if they were clipped
        self.squares: dict[int, Tensor] = {}  # of gradients and parameters after the last step, if the step made them
        self.steps = torch.zeros((), dtype=torch.float32, device=flat.pieces[0].device)
        first, second = (None if flat.buffer is None else torch.zeros_like(flat.buffer) for _ in range(2))

        def moments(parameter: Tensor) -> tuple[Tensor, Tensor]:
            if first is None or second is None or not flat.holds(parameter):
                return torch.zeros_like(parameter), torch.zeros_like(parameter)
            one, two = flat.same_place(first, parameter), flat.same_place(second, parameter)
            if isinstance(parameter, DTensor):
                return like(parameter, one, parameter.device_mesh), like(parameter, two, parameter.device_mesh)
            return one, two

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
        self._average(moved, gradients)
        self.squares.clear()
        self.unclipped = None
        if self.clip:
            self.unclipped = self.norms("")["_gradient_norm"]
            torch._foreach_mul_([local(each) for each in gradients], (self.clip / self.unclipped).clamp_(max=1.0))
        fraction = self.schedule.at(self.steps)  # of the learning rate
        self.steps += 1
        in_one = triton_switch.in_use and not self.steps.is_cpu
        if in_one and all(leaf.dtype is torch.float32 and not isinstance(leaf, DTensor) for leaf in moved):
            self._pass(fraction)
            if self.projected:
                self._follow()
            return
        torch._fused_adamw_(
            [local(leaf) for leaf in moved],
            [local(gradient) for gradient in gradients],
            [local(self.moments[id(leaf)][0]) for leaf in moved],
            [local(self.moments[id(leaf)][1]) for leaf in moved],
            [],
            [self.steps] * len(moved),
            lr=self.learning_rate if fraction is None else fraction * self.learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=self.epsilon,
            amsgrad=False,
            maximize=False,
        )
        self._follow()

    def _follow(self) -> None:
        """Project layers, then move the target towards the new parameters, and round what chains multiply."""
        for layer in self.projected:
            layer.project()
        if self.target is not None:
            torch._foreach_lerp_(self.target.pieces, self.flat.pieces, self.polyak)
        self.refresh()

    def _average(self, moved: list[Tensor], gradients: list[Tensor]) -> None:
        """Average gradients over ranks: those of a part of the network over the ranks that hold the same part."""
        if self.ranks.count == 1:
            return
        divided = {id(leaf) for leaf in self.flat.divided}
        parts = [gradient for leaf, gradient in zip(moved, gradients, strict=True) if id(leaf) in divided]
        whole = [gradient for leaf, gradient in zip(moved, gradients, strict=True) if id(leaf) not in divided]
        average_over_ranks([gradient for gradient in whole if not isinstance(gradient, DTensor)], self.ranks)
        if self.meshes is None:
            return
        average(parts, self.meshes.copies.group, self.meshes.copies.count)
        if self.meshes.columns is not None:
            # Ranks that divide columns compute equal gradients of the rest, if their devices round alike.
            repeated = [
                each for leaf in self.flat.divided if leaf.grad is not None for each in self._repeated(leaf, leaf.grad)
            ]
            average(repeated, self.meshes.columns.group, self.meshes.columns.count)

    def _repeated(self, leaf: Tensor, values: Tensor) -> list[Tensor]:
        """Return views of what all ranks that divide columns hold, in values of a leaf's shape."""
        for chain in self.flat.chains:
            if chain.leaf is leaf:
                return chain.repeated(values)
        return [values]

    def _pass(self, fraction: Tensor | None) -> None:
        """Do the same for each leaf in one pass over its memory, and keep the squares for `norms`. Where layers are
        projected, which changes the parameters again, the target does not follow yet."""
        from learner.agents import adamw_triton

        rounded = {id(chain.leaf): chain.rounded for chain in self.flat.chains}
        slow = [] if self.target is None or self.projected else self.target.leaves
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
                epsilon=self.epsilon,
                decay=self.weight_decay,
                polyak=self.polyak,
                fraction=fraction,
            )
        if self.projected:
            self.squares.clear()

    def refresh(self) -> None:
        """Round what chains multiply, after parameters, or those of the target, have changed."""
        for chain in (*self.flat.chains, *([] if self.target is None else self.target.chains)):
            chain.refresh()

    def norms(self, name: str) -> dict[str, Tensor]:
        """Return the global L2 norms of the gradients of the last step, before they were clipped, and of the parameters
        after that step."""
        found = self._norms(f"{name}_gradient_norm", f"{name}_parameter_norm")
        return found if self.unclipped is None else found | {f"{name}_gradient_norm": self.unclipped}

    def _norms(self, *names: str) -> dict[str, Tensor]:
        if self.meshes is not None and self.flat.divided:
            divided = {id(leaf) for leaf in self.flat.divided}
            squares = self.meshes.copy.add(
                sum_of(self._squares_of_part(leaf, self.meshes) for leaf in self.flat.divided)
            )
            whole = [self._squares(leaf) for leaf in self.flat.leaves if id(leaf) not in divided]
            return dict(zip(names, sum_of([squares, *whole]).sqrt(), strict=True))
        if self.squares:
            return dict(zip(names, sum_of(self.squares.values()).sqrt(), strict=True))
        gradients = [leaf.grad for leaf in self.flat.leaves if leaf.grad is not None]
        return dict(
            zip(names, (total_norm(gradients), total_norm(leaf.detach() for leaf in self.flat.leaves)), strict=True)
        )

    def _squares(self, leaf: Tensor) -> Tensor:
        """Return the sums of the squares of a leaf's gradient and of its values, (2,)."""
        if self.squares:
            return self.squares[id(leaf)]
        return squares_of([[torch.zeros_like(leaf) if leaf.grad is None else leaf.grad], [leaf.detach()]])

    def _squares_of_part(self, leaf: Tensor, meshes: Meshes) -> Tensor:
        """Return the same for a divided leaf. What several ranks hold counts once in the sum over ranks."""
        found = self._squares(leaf)
        if meshes.columns is None:
            return found
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        repeated = squares_of([self._repeated(leaf, gradient), self._repeated(leaf, leaf.detach())])
        return found - repeated * (1.0 - 1.0 / meshes.columns.count)


def squares_of(several: list[list[Tensor]]) -> Tensor:
    """Return, for each list of tensors, the sum of their squares, (lists,)."""
    return torch.stack([torch.stack(torch._foreach_norm(tensors)).square().sum() for tensors in several])


def sum_of(tensors: Iterable[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape."""
    return torch.stack(list(tensors)).sum(dim=0)


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
        epsilon=config.adam_epsilon,
        schedule=schedule(config),
        clip=config.gradient_clip,
        projected=projected(module),
    )


def adam_of_scalar(scalar: nn.Parameter, config: LearnerConfig) -> AdamW:
    """Return an optimiser for one parameter, without weight decay."""
    return AdamW(
        Flat([scalar], [scalar.detach()], scalar.detach(), [], []),
        [scalar],
        config.learning_rate,
        betas=(config.temperature_beta, BETAS[1]),
        epsilon=config.adam_epsilon,
        schedule=schedule(config),
    )
