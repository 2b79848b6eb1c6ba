"""Checks that a machine has room for a run, and that the folders and URLs of the run can be written to."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

from cluster.config.paths import check_writable
from cluster.errors import ConfigError
from cluster.plan.plan import Plan
from learner.scale.memory import in_words
from replay.demonstrations import BadDemonstrations
from replay.store.locations import free_bytes, has_room, is_shared_memory, node_memory, shared_folder
from replay.urls import is_local, open_url

# Protocols where folders need not be made. Making a folder there would make a bucket if its name is misspelt.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "az"}
# Share of memory that replay may ask for. The rest is for networks, environments and everything else on the machine.
MEMORY_SHARE = 0.9


def check_place(plan: Plan) -> None:
    """Check that there is room for the files of replay. Raises ConfigError."""
    config = plan.config
    if config.execution == "serial":
        return
    named = config.replay.directory
    if named:
        check_writable("--replay.directory", named)
    if not named and has_room(shared_folder(), plan.replay_bytes):
        return
    place = Path(named or config.runs_folder)
    room = free_bytes(place)
    if room < plan.replay_bytes:
        raise ConfigError(
            f"--replay.capacity {config.replay.capacity} of {len(plan.tasks)} tasks needs {plan.replay_bytes:,} bytes, "
            f"and {place} has {room:,} free: use at most "
            f"{int(config.replay.capacity * MEMORY_SHARE * room / plan.replay_bytes)}, or another --replay.directory"
        )


def check_url(flag: str, url: str) -> None:
    """Check that fsspec can write to a URL, by writing a file; a URL without a protocol is a folder."""
    try:
        files, root = open_url(url)
    except (ValueError, ImportError, TypeError) as error:
        raise ConfigError(f"{flag} {url!r}: {error}; use a folder or a URL that fsspec knows") from error
    if is_local(files):
        check_writable(flag, root)
        return
    try:
        if not OBJECT_STORES.intersection([files.protocol] if isinstance(files.protocol, str) else files.protocol):
            files.makedirs(root, exist_ok=True)
        probe = f"{root}/probe-{uuid.uuid4().hex}"
        with files.open(probe, "wb") as file:
            file.write(b"written to see whether that can be done")
        files.rm_file(probe)
    except Exception as error:  # file systems raise many kinds of errors
        raise ConfigError(
            f"{flag} {url}: cannot write there ({type(error).__name__}: {error}); name another place"
        ) from error


def demonstration_bytes(plan: Plan) -> int:
    """Return the bytes of all demonstrations as they are read now, about as many as replay keeps of them. Raises
    ConfigError for files that cannot be used."""
    try:
        read = [source.episodes() for source in plan.shards[0].demonstrations]
    except BadDemonstrations as error:
        raise ConfigError(f"--replay.demonstrations: {error}") from error
    held = sum(array.nbytes for episodes in read for episode in episodes for array in episode[:3])
    few = any(len(episodes) < len(plan.shards) for episodes in read)  # then each shard has all of them
    return held * (len(plan.shards) if few else 1)


def check_memory(plan: Plan, gpus: int, demonstrations: int = 0) -> None:
    """Check that replay and the learner's ranks have room in this machine's memory, beside so many bytes of
    `demonstrations`. Raises ConfigError.

    Ranks on one of `gpus` do not count, nor does replay of a resumed run, which may have its memory already."""
    available = MEMORY_SHARE * node_memory()[0] - demonstrations
    if available <= 0:
        raise ConfigError(
            f"--replay.demonstrations take {demonstrations:,} bytes of memory, and {node_memory()[0]:,} are available: "
            "use fewer"
        )
    named, learner = plan.config.replay.directory, plan.config.learner
    # Replay on a disk does not count: pages that memory does not hold are read from the disk again.
    on_disk = named and plan.config.execution != "serial" and not is_shared_memory(Path(named))
    replay = 0 if on_disk or plan.config.resume else plan.replay_bytes
    if replay > available:
        capacity = int(plan.config.replay.capacity * available / replay)
        raise ConfigError(
            f"--replay.capacity {plan.config.replay.capacity} of {len(plan.tasks)} tasks needs {replay:,} bytes, and "
            f"{available / MEMORY_SHARE:,.0f} bytes of memory are available: use at most {capacity}"
        )
    if learner.device == "cuda" or (learner.device == "auto" and gpus):
        return  # the learner checks its GPU itself
    needed = learner.ranks * sum(plan.learner_bytes.values())
    if replay + needed > available:
        raise ConfigError(
            f"--learner.width {learner.width} needs {needed:,} bytes ({in_words(plan.learner_bytes)}) "
            f"beside {replay:,} of replay, and "
            f"{available / MEMORY_SHARE:,.0f} bytes of memory are available: {fitting_width(plan, available - replay)}"
        )


def fitting_width(plan: Plan, available: float) -> str:
    """Return the widest critic for which the learner's ranks have room, or what else to lower, in words."""
    learner = plan.config.learner
    for width in range(learner.width - learner.width % 64, 0, -64):
        narrower = replace(plan, config=replace(plan.config, learner=replace(learner, width=width)))
        if learner.ranks * sum(narrower.learner_bytes.values()) <= available:
            return f"use at most {width}"
    if available > 0 and learner.batch_size > 1:
        images = ", --learner.encoder-width or --atari.size" if plan.networks.image else ""
        return f"lower --learner.batch-size {learner.batch_size}{images}"
    return "lower --replay.capacity first"
