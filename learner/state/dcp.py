"""Saves and loads a learner's state with torch.distributed.checkpoint, in a folder or at a URL that fsspec supports.

Each rank writes its part while updates go on. Any number of ranks, on any device, can read the files.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint._fsspec_filesystem import FileSystem
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import async_save

from learner.agents.catalogue import agent_of, described
from learner.learner import Learner
from learner.networks.modules import normalized
from learner.networks.spec import NetworkSpec
from learner.spec import LearnerSpec
from learner.state.publishing import Outgoing
from replay.json_text import json_text
from replay.policy_store import PolicyMessage
from replay.urls import is_local, open_url

COUNTERS = "learner.json"
warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # with a single rank it is


class Saving:
    """A state that has been copied and is being written."""

    def __init__(self, written: Future[Any], updates: int) -> None:
        self.written = written
        self.updates = updates

    def result(self) -> int:
        """Wait for the files of all ranks and return their number of updates. Raises OSError when a write fails."""
        with plain_errors("the learner's state cannot be written"):
            self.written.result()
        return self.updates


@contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Turn a CheckpointException into an OSError with a one-line message. A CheckpointException is no subclass of
    Exception."""
    try:
        yield
    except CheckpointException as error:
        causes = {f"rank {rank}: {failure[0]}" for rank, failure in error.failures.items()}
        raise OSError(f"{what}: {'; '.join(sorted(causes))}") from error


class LiteralFiles(FileSystem):
    """The file system through which torch writes to a URL. Names are literal; torch's own class calls fsspec's `mv` and
    `rm`, which interpret names as patterns."""

    fs: Any  # an fsspec file system

    def init_path(self, path: Any, **_: Any) -> Any:
        self.fs = open_url(path)[0]
        return path

    def rename(self, path: Any, new_path: Any) -> None:
        self.fs.cp_file(path, new_path)
        self.fs.rm_file(path)

    def rm_file(self, path: Any) -> None:
        self.fs.rm_file(path)


class LiteralWriter(FileSystemWriter):
    """Writes a checkpoint to a URL through LiteralFiles."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.fs = LiteralFiles()  # type: ignore[assignment]
        self.path = self.fs.init_path(url)


class LiteralReader(FileSystemReader):
    """Reads a checkpoint from a URL through LiteralFiles."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.fs = LiteralFiles()  # type: ignore[assignment]
        self.path = self.fs.init_path(url)


def writer(url: str) -> LiteralWriter | None:
    """Return a writer for a URL; None for a local folder, where torch's own writer takes names literally."""
    return None if is_local(open_url(url)[0]) else LiteralWriter(url)


def reader(url: str) -> LiteralReader | None:
    """Return a reader for a URL; None for a local folder, as in `writer`."""
    return None if is_local(open_url(url)[0]) else LiteralReader(url)


def open_counters(url: str, mode: str) -> Any:
    files, root = open_url(url)
    if mode == "w" and is_local(files):
        files.makedirs(root, exist_ok=True)
    return files.open(f"{root}/{COUNTERS}", mode)


def save_counters(learner: Learner, url: str) -> None:
    """Write the counters, on the first rank. A full disk shows here, before any rank has begun to write tensors."""
    with open_counters(url, "w") as file:
        file.write(json_text(learner.counters()))


def save(learner: Learner, url: str, group: dist.ProcessGroup | None = None) -> Saving:
    """Copy the tensors and begin to write them. Every rank must call this, with a group that nothing else uses
    meanwhile."""
    alone = learner.ranks.count == 1
    files = writer(url)
    written = async_save(learner.tensors(), checkpoint_id=url, storage_writer=files, process_group=group, no_dist=alone)
    assert isinstance(written, Future)
    return Saving(written, learner.updates)


def continued(spec: LearnerSpec, url: str) -> LearnerSpec:
    """Return the spec with the checkpoint's precision instead of `auto`: it stays the same, whatever the machine."""
    with open_counters(url, "r") as file:
        saved = json.load(file).get("precision", spec.config.precision)  # missing in checkpoints of earlier versions
    return spec.changed(precision=saved) if spec.config.precision == "auto" else spec


def load(learner: Learner, url: str) -> None:
    """Load a saved state into the learner. Every rank must call this. Raises ValueError when its networks have other
    shapes.

    The learning rates stay those of the learner's own settings.
    """
    with open_counters(url, "r") as file:
        learner.load_counters(json.load(file))
    with plain_errors(f"{url} cannot be read"):
        dcp_load(learner.tensors(), checkpoint_id=url, storage_reader=reader(url), no_dist=learner.ranks.count == 1)
    learner.refresh()


def load_policy(networks: NetworkSpec, url: str) -> PolicyMessage:
    """Return the policy message of a checkpoint: the acting network and the task embeddings. Nothing else is loaded."""
    agent = agent_of(networks)
    part = described(networks).acts
    with torch.device("meta"):  # of the other networks nothing is made: a critic may be larger than this machine
        modules = agent.modules(networks)
    acts = modules[part].to_empty(device="cpu")
    wanted: dict[str, dict[str, Any]] = {part: dict(acts.state_dict())}
    table = wanted[part].get("task_embeddings")
    if networks.num_tasks > 1 and table is None:
        table = torch.empty(networks.num_tasks, networks.embedding_size)
        wanted["critic"] = {"task_embeddings": table}
    with plain_errors(f"{url} cannot be read"):
        dcp_load(wanted, checkpoint_id=url, storage_reader=reader(url), no_dist=True)
    with open_counters(url, "r") as file:
        updates = json.load(file)["updates"]
    return Outgoing(acts, None if table is None else normalized(table, networks.embedding_norm), updates).message()
