"""Fills a shard from a snapshot: exactly, or redistributed over other shards (in number, size or task list)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from replay.snapshots.snapshot import Place, SnapshotError, extremes_of, pieces_of
from replay.store import moments
from replay.store.ring import TaskRing, unpack
from replay.store.rows import LAST, NOT_DRAWN, Rows
from replay.store.storage import Storage, StorageSpec, spec_from_json

SEGMENTS_AT_ONCE = 256


def is_exact(manifest: dict[str, Any], shards: int, spec: StorageSpec) -> bool:
    """Whether the shard of a manifest can be restored exactly, as one of `shards` shards of `spec`."""
    saved = spec_from_json(manifest["spec"])
    return bool(manifest["shards"] == shards and saved.layout() == spec.layout())


def restore_exactly(storage: Storage, place: Place, manifest: dict[str, Any]) -> None:
    """Restore every row at its number, and the state of the generator: the next sample is the same as without a
    restart."""
    bounds = manifest["bounds"]
    for task, ring in enumerate(storage.rings):
        ring.bounds[:] = (*bounds[task], 0)
    for piece, packed, flags in place.read(manifest, pieces_of(manifest)):
        ring = storage.rings[piece.task]
        skipped = max(0, ring.tail - piece.first)  # rows given up before the snapshot, in a piece with held rows
        ring.fill(piece.first + skipped, packed[skipped:], flags[skipped:])
        ring.bounds[2] += np.count_nonzero((flags[skipped:] & NOT_DRAWN) == 0)
    storage.return_minimum[:], storage.return_maximum[:] = extremes_of(manifest)
    storage.return_moments[:] = manifest["moments"]
    storage.rng.bit_generator.state = manifest["counters"]["rng"]


def restore_dealt(storage: Storage, place: Place, manifests: Sequence[dict[str, Any]], index: int, shards: int) -> None:
    """Restore every `shards`-th segment of the snapshot, from number `index`, oldest first. If they do not all fit, the
    oldest are dropped.

    The age of a segment is the number of newer segments in its shard. Tasks are matched by name. Tasks that are not in
    the snapshot stay empty. SnapshotError is raised if the snapshot has tasks that the run does not have.
    """
    specs = [spec_from_json(manifest["spec"]) for manifest in manifests]
    known = specs[0].tasks
    missing = [task for task in known if task not in storage.spec.tasks]
    if missing:
        raise SnapshotError(f"the snapshot holds {missing}, which the run does not train on; add them to --tasks")
    for task, name in enumerate(storage.spec.tasks):
        if name not in known:
            continue
        old = known.index(name)
        shape, found = storage.spec.observation_shapes[task], specs[0].observation_shapes[old]
        if shape != found or specs[0].action_size > storage.spec.action_size:
            raise SnapshotError(
                f"{name} has observations of {found} and {specs[0].action_size} actions in the snapshot, which do not "
                f"fit into {shape} and {storage.spec.action_size}"
            )
        _deal(storage, task, old, place, manifests, index, shards)
        for manifest in manifests:
            least, greatest = (side[old] for side in extremes_of(manifest))
            storage.return_minimum[task] = min(storage.return_minimum[task], np.float32(least))
            storage.return_maximum[task] = max(storage.return_maximum[task], np.float32(greatest))
            if index == 0:  # the first shard has the moments of all: they must count once
                measured = np.array(manifest["moments"][old])
                storage.return_moments[task] = moments.merge(storage.return_moments[task], measured)


def _deal(
    storage: Storage,
    task: int,
    old: int,
    place: Place,
    manifests: Sequence[dict[str, Any]],
    index: int,
    shards: int,
) -> None:
    streams = [segments_of(place, manifest, old) for manifest in manifests]
    mine: list[Rows] = []
    for number, (_, rows) in enumerate(heapq.merge(*streams, key=lambda segment: -segment[0])):
        if number % shards == index:
            mine.append(rows)
        if len(mine) == SEGMENTS_AT_ONCE:
            add(storage.rings[task], mine)
            mine = []
    add(storage.rings[task], mine)


def segments_of(place: Place, manifest: dict[str, Any], task: int) -> Iterator[tuple[int, Rows]]:
    """Yield (number of newer segments in the shard, rows) of every segment of a task, oldest first."""
    spec, tail = spec_from_json(manifest["spec"]), manifest["bounds"][task][1]
    pieces = sorted((piece for piece in pieces_of(manifest) if piece.task == task), key=lambda piece: piece.first)
    newer = sum(piece.segments for piece in pieces)
    for piece, packed, flags in place.read(manifest, pieces):
        rows = unpack(packed, flags, spec.observation_shapes[task], spec.dtype, spec.action_size)
        start = 0
        for stop in np.flatnonzero(flags & LAST) + 1:
            newer -= 1
            if piece.first + start >= tail:  # else given up before the snapshot, in a piece with held rows
                yield newer, Rows(*(array[start:stop] for array in rows))
            start = int(stop)


def add(ring: TaskRing, segments: list[Rows]) -> None:
    """Append as many of the newest of these segments as fit. Actions of a smaller size are padded with zeros."""
    sizes = np.cumsum([len(rows.flags) for rows in reversed(segments)])
    fitting = segments[len(segments) - int(np.count_nonzero(sizes <= ring.rows)) :]
    if not fitting:
        return
    rows = Rows(*(np.concatenate(arrays) for arrays in zip(*fitting, strict=True)))
    wide = np.zeros((len(rows.flags), ring.actions.shape[1]), np.float32)
    wide[:, : rows.actions.shape[1]] = rows.actions
    ring.evict(len(rows.flags))
    ring.write(rows._replace(actions=wide))
    ring.advance(len(rows.flags), rows.transitions)
