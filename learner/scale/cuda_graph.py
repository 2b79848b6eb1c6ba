"""Records an update once as a CUDA graph. The host then launches one graph instead of hundreds of kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3  # calls in which libraries choose their kernels and take their memory


class Recorded:
    """A function of tensors of fixed shapes. It runs directly in the first few calls, and later from its recording.

    The function must not wait for the device. Tensors that it changes must stay at their place in memory. The next call
    overwrites the result. Random numbers continue the stream of `generator`.
    """

    def __init__(
        self, function: Callable[..., dict[str, Tensor]], generator: torch.Generator, pool: Any = None
    ) -> None:
        """Recordings with one `pool`, a handle of torch.cuda.graph_pool_handle, share the memory of what lives within a
        call."""
        self.function = function
        self.generator = generator
        self.pool = pool
        self.calls = 0
        self.aside: torch.cuda.Stream | None = None
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls <= WARM_UP:
            # On another stream, as in the recording: autograd remembers the stream of an operation.
            current = torch.cuda.current_stream()
            self.aside = self.aside or torch.cuda.Stream()
            self.aside.wait_stream(current)
            with torch.cuda.stream(self.aside):
                outputs = self.function(*inputs)
            current.wait_stream(self.aside)
            return outputs
        if self.graph is None:
            self.inputs = [tensor.clone() for tensor in inputs]
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self.generator)
            try:
                # thread_local: threads that write a checkpoint may use CUDA during the recording.
                with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                    self.outputs = self.function(*self.inputs)
            except RuntimeError as error:
                error.add_note("This happened while an update was recorded; --learner.no-record makes updates without.")
                raise
            self.graph = graph
        else:
            torch._foreach_copy_(self.inputs, inputs)
        self.graph.replay()
        return self.outputs
