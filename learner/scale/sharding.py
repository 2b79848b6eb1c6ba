"""Distributes each update over several ranks. The code of the update itself does not depend on the ranks.

Each rank computes its rows of every batch. With `replicate`, every rank holds the whole state. With `shard`, each rank
holds a part of every layer of the critic and the target, with the optimiser state of that part (FSDP2: rows of each
weight; heads are separate modules, so no ensemble dimension is sharded). The policy, the task embeddings and the
temperature are always replicated: they are small, or actors need them. Gradients are averaged in the precision of the
parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import TCPStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from learner.networks.modules import Critic
from learner.networks.torch_network import Members, ResidualSum, split_chains
from learner.spec import Ranks

MEETING_S = 300.0


def meet(ranks: Ranks, host: str, port: int) -> TCPStore:
    """Return the store through which the ranks meet. The first rank listens at the port (0: any free port), and the
    others connect to it."""
    first = ranks.rank == 0
    return TCPStore(host, port, ranks.count, first, timedelta(seconds=MEETING_S), wait_for_workers=False)


def join(ranks: Ranks, store: TCPStore, device: str, timeout_s: float) -> None:
    """Join the process group. A collective that takes longer than the timeout fails in every rank that waits for it.

    Processes may start at very different times, so they first wait for each other, outside that timeout.
    """
    store.set(f"here/{ranks.rank}", "")
    store.wait([f"here/{rank}" for rank in range(ranks.count)])
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    timeout = timedelta(seconds=timeout_s)
    dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.count, timeout=timeout)


def shard(critic: Critic, ranks: Ranks, device: str, bfloat16: bool) -> None:
    """Shard a critic over the ranks, if `ranks.sharding` is "shard". Layers are gathered one block at a time.

    With `bfloat16` the gathered copies are bfloat16, which halves the traffic.
    """
    if ranks.sharding != "shard":
        return
    mesh = init_device_mesh(
        device, (ranks.replicas, ranks.count // ranks.replicas), mesh_dim_names=("replicas", "shards")
    )
    options: dict[str, Any] = {
        "mesh": mesh if ranks.replicas > 1 else mesh["shards"],
        "reshard_after_forward": True,
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bfloat16 else None,
            reduce_dtype=torch.float32 if bfloat16 else None,
            cast_forward_inputs=False,  # chains round them
        ),
    }
    for members in [module for module in critic.modules() if isinstance(module, Members)]:
        for head in members.children():
            for block in [module for module in head.modules() if isinstance(module, ResidualSum)]:
                fully_shard(block, **options)
            fully_shard(head, **options)
    split_chains(critic)
    table = critic.task_embeddings
    fully_shard(critic, ignored_params=set() if table is None else {table}, **options)


def average_over_ranks(tensors: Sequence[Tensor], ranks: Ranks) -> None:
    """Replace tensors, all of one dtype, by their mean over ranks."""
    if ranks.count == 1 or not tensors:
        return
    if len(tensors) == 1 and tensors[0].is_contiguous():
        dist.all_reduce(tensors[0])
        tensors[0].div_(ranks.count)
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= ranks.count
    for tensor, averaged in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(averaged.view_as(tensor))


def alike(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Return whole tensors and sharded tensors as separate lists, each in order: no kernel accepts both. Empty lists
    are left out."""
    kinds: tuple[list[Tensor], list[Tensor]] = ([], [])
    for tensor in tensors:
        kinds[isinstance(tensor, DTensor)].append(tensor)
    return [kind for kind in kinds if kind]


def whole(tensor: Tensor) -> Tensor:
    """Return the full tensor of a tensor that may be sharded. Every rank must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the L2 norm of all tensors together, over all ranks. Every rank must call this."""
    found: Tensor = torch.stack([whole(nn.utils.get_total_norm(kind)) for kind in alike(tensors)]).norm()
    return found
