"""Trains a learner on fake tensors of a device that does not exist, and lists what it asks of that device.

`python -m tests.support.no_device LIBRARY` prints one JSON object a line: the case; `operations`, the number of times
that an update calls each operation of the device; `bytes`, what they read and write; and `copies`, the copies between
host and device and their direction. A wait for the device ends it with an error. LIBRARY is the compiled no_device.cpp.
It runs as a process of its own, since the device is registered for the whole process.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from learner.agents import adamw_triton, categorical, losses_triton
from learner.learner import Learner
from learner.networks import norm_triton
from learner.networks.spec import NetworkSpec
from learner.scale.crew import allocate
from learner.scale.precision import Precision
from learner.spec import LearnerSpec
from tests.support.specs import learner_spec

DEVICE = "nothing"
CONTINUOUS = NetworkSpec(observation_size=7, action_size=3, num_tasks=3, width=64, policy_width=32)
DISCRETE = replace(CONTINUOUS, action_size=1, num_actions=(4, 6, 3))
NETWORKS = {
    "continuous": CONTINUOUS,
    "normalised": replace(CONTINUOUS, normalize_observations=True),
    **{network: replace(CONTINUOUS, network=network) for network in ("mlp", "simba", "simbav2", "xqc", "flash")},
    "heads of tasks": replace(CONTINUOUS, conditioning="heads"),
    "discrete": DISCRETE,
    "images": replace(DISCRETE, observation_size=4 * 20 * 20, image=(4, 20, 20)),
}
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16")
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "item", "equal", "unique")
# Operations that only describe memory in another way, or allocate it.
VIEWS = (
    "view",
    "_unsafe_view",
    "reshape",
    "t.",
    "transpose",
    "permute",
    "expand",
    "select",
    "slice",
    "unbind",
    "split",
)
LOSSES = [name for name in vars(losses_triton) if name.endswith("_kernel")]
FREE = (*VIEWS, "detach", "alias", "squeeze", "unsqueeze", "as_strided", "empty", "new_empty", "prim.", "lift_fresh")


class Stream:
    def wait_stream(self, other: Stream) -> None:
        pass


class Event:
    def record(self) -> None:
        pass


class Watch(TorchDispatchMode):
    """Counts the operations of the device, their bytes, and copies between it and the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: Counter[str] = Counter()
        self.bytes = 0
        self.copies: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(operation).removeprefix("aten.")
        found = operation(*args, **(kwargs or {}))
        inputs = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        outputs = [one for one in tree_leaves(found) if isinstance(one, Tensor)]
        if any(name.startswith(wait) for wait in WAITS) and any(one.device.type == DEVICE for one in inputs):
            raise RuntimeError(f"{name} waits for the device")
        changed = [
            value
            for argument, value in zip(operation._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        places = [one.device.type for one in (*inputs, *outputs)]
        if name.startswith(("_to_copy", "copy_")) and len(set(places)) > 1:
            # The source of copy_ is its second argument.
            source, target = (inputs[-1], outputs[0])
            self.copies[f"{source.device.type} to {target.device.type}"] += 1
        elif DEVICE in places and not name.startswith(FREE):
            self.add(name, [*inputs, *outputs], tree_leaves(changed))
        return found

    def add(self, name: str, tensors: Sequence[Tensor], changed: Sequence[Tensor]) -> None:
        """Count an operation that reads or writes tensors, and both for those that it changes in place."""
        sizes = {id(one): one.numel() * one.itemsize for one in tensors}
        self.operations[name] += 1
        self.bytes += sum(sizes.values()) + sum(sizes[one] for one in {id(one) for one in changed})


class Launches:
    """Counts the launches of a kernel in Triton in place of making them."""

    watch: Watch | None = None

    def __init__(self, name: str, changed: Sequence[int] = ()) -> None:
        """`changed`: the places of arguments that the kernel reads and writes."""
        self.name, self.changed = name, changed

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, **options: Any) -> None:
            if self.watch is not None:
                changed = [arguments[place] for place in self.changed]
                self.watch.add(self.name, [one for one in arguments if isinstance(one, Tensor)], changed)

        return launch


@contextmanager
def no_device(library: str) -> Iterator[None]:
    """Register the device, and its streams and events, which never wait."""
    torch.ops.load_library(library)
    torch.utils.rename_privateuse1_backend(DEVICE)  # type: ignore[attr-defined]
    module = SimpleNamespace(
        Stream=Stream,
        Event=Event,
        current_stream=Stream,
        stream=lambda stream: nullcontext(),
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        manual_seed_all=lambda seed: None,
        _is_in_bad_fork=lambda: False,
    )
    torch._register_device_module(DEVICE, module)
    generator = torch.Generator
    with ExitStack() as stack:
        # Fake random numbers need no generator of the device.
        stack.enter_context(mock.patch("torch.Generator", return_value=generator()))
        stack.enter_context(mock.patch("torch.Tensor.record_stream"))
        stack.enter_context(mock.patch.object(norm_triton, "forward_kernel", Launches("norm_forward")))
        stack.enter_context(mock.patch.object(norm_triton, "backward_kernel", Launches("norm_backward")))
        stack.enter_context(mock.patch.object(adamw_triton, "step_kernel", Launches("adamw_pass", (0, 2, 3, 4))))
        for name in LOSSES:
            stack.enter_context(mock.patch.object(losses_triton, name, Launches(name)))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


def spec_of(networks: NetworkSpec, precision: Precision) -> LearnerSpec:
    spec = learner_spec(networks, precision=precision, batch_size=32, batches_per_request=2)
    spec = replace(spec, observation_dtype="uint8") if networks.image else spec
    return replace(spec, config=replace(spec.config, device=DEVICE))  # type: ignore[arg-type]


def watched(spec: LearnerSpec) -> Watch:
    """Return what a request of two updates asks of the device."""
    categorical.atoms.cache_clear()
    with unset_fake_temporarily():
        batches = allocate(replace(spec, config=replace(spec.config, device="cpu")), spec.config.batch_size)
    with mock.patch("learner.scale.precision.multiplies_bfloat16", return_value=True):
        learner = Learner(spec)
        learner.train(batches)  # constants are made in the first updates
        watch = Watch()
        with watch, mock.patch.object(Launches, "watch", watch):
            learner.train(batches, diagnostics=True)
    return watch


def main(library: str) -> None:
    with no_device(library):
        for kind, networks in NETWORKS.items():
            for precision in PRECISIONS:
                found = watched(spec_of(networks, precision))
                row = {"case": f"{kind} {precision}", "operations": found.operations, "bytes": found.bytes}
                print(json.dumps(row | {"copies": found.copies}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
