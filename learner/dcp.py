"""A learner's state in files, by torch.distributed.checkpoint: each rank writes its part while updates go on, and any
number of ranks, on any device, reads them. In a folder or at a URL that fsspec knows.
"""

from __future__ import annotations

import json
import warnings
from concurrent.futures import Future
from typing import Any

import fsspec
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import async_save

from learner.footprint import NetworkSpec
from learner.learner import Learner
from learner.networks import Policy, normalized
from learner.publishing import Outgoing
from replay.policy_store import PolicyMessage

COUNTERS = "learner.json"
warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # as it is when a rank is alone


class Saving:
    """State that has been copied and is being written."""

    def __init__(self, written: Future[Any], updates: int) -> None:
        self.written = written
        self.updates = updates

    def result(self) -> int:
        """Wait for all ranks' files; the updates that they hold. Raises OSError when one cannot be written."""
        try:
            self.written.result()
        except CheckpointException as error:  # not an Exception to Python, and says what happened in many lines
            causes = {f"rank {rank}: {failure[0]}" for rank, failure in error.failures.items()}
            raise OSError(f"the learner's state cannot be written: {'; '.join(sorted(causes))}") from error
        return self.updates


def save(learner: Learner, url: str, group: dist.ProcessGroup | None = None) -> Saving:
    """Copy the state and begin to write it. Every rank must call it, with a group that nothing else uses meanwhile."""
    if learner.ranks.rank == 0:
        with fsspec.open(f"{url}/{COUNTERS}", "w") as file:
            json.dump(learner.counters(), file)
    alone = learner.ranks.count == 1
    written = async_save(learner.tensors(), checkpoint_id=url, process_group=group, no_dist=alone)
    assert isinstance(written, Future)
    return Saving(written, learner.updates)


def load(learner: Learner, url: str) -> None:
    """Make the learner what was saved. Every rank must call it. Raises ValueError when its networks have other shapes.

    Rates of the optimisers stay those of its own settings.
    """
    with fsspec.open(f"{url}/{COUNTERS}") as file:
        learner.load_counters(json.load(file))
    dcp_load(learner.tensors(), checkpoint_id=url, no_dist=learner.ranks.count == 1)


def load_policy(networks: NetworkSpec, url: str) -> PolicyMessage:
    """What is published of a checkpoint: policy and task embeddings, without the rest having to fit anywhere."""
    policy = Policy(networks)
    table = torch.empty(networks.num_tasks, networks.embedding_size) if networks.num_tasks > 1 else None
    wanted = {"policy": {name: parameter.detach() for name, parameter in policy.named_parameters()}}
    if table is not None:
        wanted["critic"] = {"task_embeddings": table}
    dcp_load(wanted, checkpoint_id=url, no_dist=True)
    with fsspec.open(f"{url}/{COUNTERS}") as file:
        updates = json.load(file)["updates"]
    return Outgoing(policy, None if table is None else normalized(table, networks.embedding_norm), updates).message()
