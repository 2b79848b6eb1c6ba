"""Updates recorded once as a CUDA graph: the host then says one thing instead of hundreds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # calls in which libraries choose their kernels and take their memory


class Recorded:
    """A function of tensors of fixed shapes that runs as it is a few times, and from then on from its recording.

    It may not wait for the device, and what it changes must stay where it is in memory. What it returns is overwritten
    by the next call. Random numbers go on where `generator` is.
    """

    def __init__(self, function: Callable[..., dict[str, Tensor]], generator: torch.Generator) -> None:
        self.function = function
        self.generator = generator
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls <= WARM_UP:
            # Beside the stream in use, as the recording will be: autograd remembers streams.
            aside, current = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                outputs = self.function(*inputs)
            current.wait_stream(aside)
            return outputs
        if self.graph is None:
            self.inputs = [tensor.clone() for tensor in inputs]
            self.graph = torch.cuda.CUDAGraph()
            self.graph.register_generator_state(self.generator)
            # Threads that write a checkpoint may go on meanwhile.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.outputs = self.function(*self.inputs)
        else:
            torch._foreach_copy_(self.inputs, inputs)
        self.graph.replay()
        return self.outputs
