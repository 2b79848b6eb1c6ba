"""Distributes each update over several ranks. The code of the update itself does not depend on the ranks.

With `replicate`, every rank holds the whole state and computes its rows of every batch.

With `shard`, each rank computes its rows too, and holds a part of every layer of the critic and the target with the
optimiser state of that part. It gathers the weights of a layer when it needs them (FSDP2).

With `tensor`, each rank computes a part of the critic for all rows. Ranks divide the heads among them. Where there are
more ranks than heads, ranks of one head divide the columns of its dense layers' outputs. They exchange activations,
which are smaller than weights if there are fewer rows than columns.

The policy, the task embeddings and the temperature are always replicated: they are small, or actors need them.
Gradients are averaged in the precision of the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import TCPStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from learner.networks.layers import Linear
from learner.networks.modules import Critic
from learner.networks.parallel import Parts
from learner.networks.torch_network import Members, ResidualSum, plan_again, split_chains
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


@dataclass(frozen=True)
class Meshes:
    """The groups of ranks that exchange parts of a critic.

    Attributes:
        mesh: all ranks as (copies of the critic, heads, columns); as (copies, shards) if sharded.
        copies: the ranks that hold the same part of other copies.
        copy: the ranks that together hold the copy of this rank.
        columns: the ranks that divide the columns of this rank's heads; None if they are not divided.
    """

    mesh: DeviceMesh
    copies: Parts
    copy: Parts
    columns: Parts | None = None


def meshes(ranks: Ranks, heads: int, device: str) -> Meshes | None:
    """Return the groups of this rank, for a critic with this number of heads; None if it is replicated. Every rank must
    call this. The timeout of the process group holds in its parts too."""
    if ranks.sharding == "replicate":
        return None
    found = _meshes(ranks, heads, device)
    assert dist.group.WORLD is not None
    timeout = dist.group.WORLD._get_backend(torch.device("cpu")).options._timeout
    for each in (found.copies, found.copy, *([] if found.columns is None else [found.columns])):
        dist.distributed_c10d._set_pg_timeout(timeout, each.group)
    for name in found.mesh.mesh_dim_names or ():
        dist.distributed_c10d._set_pg_timeout(timeout, found.mesh[name].get_group())
    return found


def _meshes(ranks: Ranks, heads: int, device: str) -> Meshes:
    held = ranks.count // ranks.replicas
    if ranks.sharding == "shard":
        mesh = init_device_mesh(device, (ranks.replicas, held), mesh_dim_names=("copies", "shards"))
        return Meshes(mesh, parts(mesh["copies"]), parts(mesh["shards"]))
    apart = math.gcd(held, heads)
    mesh = init_device_mesh(
        device, (ranks.replicas, apart, held // apart), mesh_dim_names=("copies", "heads", "columns")
    )
    copy = parts(mesh["heads", "columns"]._flatten("copy"))
    return Meshes(mesh, parts(mesh["copies"]), copy, parts(mesh["columns"]) if held > apart else None)


def parts(mesh: DeviceMesh) -> Parts:
    """Return the ranks of a mesh of one dimension."""
    return Parts(mesh.get_group(), mesh.get_local_rank(), mesh.size())


def divide(critic: Critic, found: Meshes) -> None:
    """Keep this rank's part of a critic whose parameters are on the meta device: its heads, or its columns of the dense
    layers of one head. Layers whose number of columns cannot be divided evenly stay whole."""
    heads, columns = parts(found.mesh["heads"]), found.columns
    for members in [module for module in critic.modules() if isinstance(module, Members)]:
        each = len(members._modules) // heads.count
        for index, name in enumerate(list(members._modules)):
            if index // each != heads.index:
                del members._modules[name]
        members.parts = heads
        for layer in [module for module in members.modules() if isinstance(module, Linear)]:
            if columns is not None and layer.out_features % columns.count == 0:
                layer.columns = columns
                own = like(layer.weight, columns.own(layer.weight.detach(), 0), found.mesh["columns"])
                layer.weight = nn.Parameter(own, layer.weight.requires_grad)
    plan_again(critic)


def like(whole: Tensor, own: Tensor, mesh: DeviceMesh) -> DTensor:
    """Return a tensor of the shape of `whole`, of which this rank holds the rows `own`, in the same memory."""
    # torch's checkpoints treat a DTensor whose local part has a storage offset as a plain tensor, and fail. A DTensor
    # keeps the offset of the part that it is made from, so it is made from another part, which takes no memory.
    found = DTensor.from_local(
        own.new_empty(1).expand(own.shape), mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride()
    )
    found._local_tensor = own
    return found


def to_save(tensor: Tensor) -> Tensor:
    """Return a tensor in the same memory, such as torch's checkpoints can read and write."""
    if isinstance(tensor, DTensor) and tensor._local_tensor.storage_offset():
        return like(tensor, tensor._local_tensor, tensor.device_mesh)
    return tensor


def shard(critic: Critic, found: Meshes, bfloat16: bool) -> None:
    """Shard a critic over the ranks. Layers are gathered one block at a time.

    With `bfloat16` the gathered copies are bfloat16, which halves the traffic.
    """
    options: dict[str, Any] = {
        "mesh": found.mesh if found.copies.count > 1 else found.mesh["shards"],
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
    average(tensors, None, ranks.count)


def average(tensors: Sequence[Tensor], group: Any, count: int) -> None:
    """Replace tensors, all of one dtype, by their mean over the `count` ranks of a group."""
    if count == 1 or not tensors:
        return
    if len(tensors) == 1 and tensors[0].is_contiguous():
        dist.all_reduce(tensors[0], group=group)
        tensors[0].div_(count)
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat, group=group)
    flat /= count
    for tensor, averaged in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(averaged.view_as(tensor))


def alike(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Return whole tensors and sharded tensors as separate lists, each in order: no kernel accepts both. Empty lists
    are left out."""
    kinds: tuple[list[Tensor], list[Tensor]] = ([], [])
    for tensor in tensors:
        kinds[isinstance(tensor, DTensor)].append(tensor)
    return [kind for kind in kinds if kind]


@torch.no_grad()
def put(tensor: Tensor, value: Tensor) -> None:
    """Copy a value into a tensor, or this rank's part of the value into this rank's part of the tensor."""
    value = value.to(tensor.device, tensor.dtype)
    if isinstance(tensor, DTensor):
        # Every rank has the value: none is sent.
        own = distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)
        tensor._local_tensor.copy_(own._local_tensor)
    else:
        tensor.copy_(value)


def whole(tensor: Tensor) -> Tensor:
    """Return the full tensor of a tensor that may be sharded. Every rank must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the L2 norm of all tensors together, over all ranks. Every rank must call this."""
    found: Tensor = torch.stack([whole(nn.utils.get_total_norm(kind)) for kind in alike(tensors)]).norm()
    return found
