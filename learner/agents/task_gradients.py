"""The inner products of the gradients of tasks' losses, for gradient surgery and for measures of conflict.

The gradient of a task's loss has the size of the network: 50 of them would take 27 GB at width 4096. Where a network
treats each row by itself, their inner products follow from the inputs and gradients of its layers: the product of the
gradients of two rows, in the weight of a Dense, is the product of their inputs times that of their outputs' gradients.
This takes a forward pass and two thirds of a backward pass, and no memory that grows with the tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner.networks.layers import Linear, RMSNorm, Scaler
from learner.networks.torch_network import layer_by_layer


class Shares(NamedTuple):
    """What each row of a batch counts in the mean loss of its task.

    Attributes:
        tasks: 1 where the row (B) is of the task (K), else 0; (B, K).
        each: 1 / number of rows of the same task, (B,).
    """

    tasks: Tensor
    each: Tensor

    def rows(self, weights: Tensor) -> Tensor:
        """Return the weight (B,) of each row in the sum of the tasks' mean losses with these weights (K,)."""
        return (self.tasks @ weights) * self.each


def shares(task_ids: Tensor, num_tasks: int, dtype: torch.dtype) -> Shares:
    """Return the shares of rows of these tasks (B,)."""
    tasks = F.one_hot(task_ids, num_tasks).to(dtype)
    return Shares(tasks, 1.0 / (tasks @ tasks.sum(dim=0)))


class Seen(NamedTuple):
    """A layer with parameters, in a forward pass."""

    layer: nn.Module
    input: Tensor  # (B, inputs)
    output: Tensor  # (B, outputs)


@contextmanager
def seen(network: nn.Module) -> Iterator[list[Seen]]:
    """Let a network run layer by layer, and collect what its layers with parameters see."""
    found: list[Seen] = []

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(Seen(layer, inputs[0].detach(), output))

    kinds = (Linear, nn.LayerNorm, RMSNorm, Scaler)
    with layer_by_layer(network):
        handles = [layer.register_forward_hook(hook) for layer in network.modules() if isinstance(layer, kinds)]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()


# (weights of rows (B,)) -> the gradients of what a loss depends on, in the sum of the rows' losses with these weights
Gradients = Callable[[Tensor], list[Tensor]]


def by_rows(
    layers: Sequence[Seen],
    outputs: Sequence[Tensor],
    gradients: Gradients,
    of: Shares,
    rows: Tensor | None = None,
    table: Tensor | None = None,
) -> Tensor:
    """Return the Gram matrix (K, K) of the tasks' gradients in all parameters that a forward pass has seen.

    Args:
        outputs: what the loss depends on.
        rows: the rows (B, size) of the embedding table that the pass has used, and the `table` (K, size), if its
            gradients count: those of different tasks have no common part.
    """
    needed = [layer.output for layer in layers] + ([] if rows is None else [rows])
    found = torch.autograd.grad(list(outputs), needed, gradients(of.each), retain_graph=rows is not None)
    gram = of.tasks.new_zeros(of.tasks.shape[1], of.tasks.shape[1])
    for (layer, x, _), gradient in zip(layers, found, strict=False):
        for part in _parts(layer, x, gradient):
            if isinstance(part, tuple):
                gram += of.tasks.mT @ ((part[0] @ part[0].mT) * (part[1] @ part[1].mT)) @ of.tasks
            else:
                summed = of.tasks.mT @ part
                gram += summed @ summed.mT
    if rows is not None and table is not None:
        (in_table,) = torch.autograd.grad(rows, table, found[-1])
        gram += torch.diag(in_table.square().sum(dim=1))
    return gram


def by_tasks(outputs: Sequence[Tensor], gradients: Gradients, of: Shares, leaves: Sequence[Tensor]) -> Tensor:
    """Return the same by a backward pass for each task, which holds the gradients of all: for small networks in which
    rows depend on each other. The graph of the outputs is kept."""
    found = []
    for task in of.tasks.unbind(dim=1):
        own = gradients(of.each * task)
        parts = torch.autograd.grad(list(outputs), list(leaves), own, retain_graph=True, materialize_grads=True)
        found.append(torch.cat([part.flatten() for part in parts]))
    each = torch.stack(found)
    return each @ each.mT


def _parts(layer: Any, x: Tensor, gradient: Tensor) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
    """Yield, for each parameter of a layer, the gradients of rows (B, n), or the two factors of which they are outer
    products."""
    match layer:
        case Linear():
            yield x.to(gradient.dtype), gradient
            if layer.bias is not None:
                yield gradient
        case nn.LayerNorm():
            yield gradient * F.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
            yield gradient
        case RMSNorm():
            yield gradient * F.rms_norm(x, layer.weight.shape, None, layer.layer.epsilon)
        case Scaler():
            yield gradient * x * layer.ratio
