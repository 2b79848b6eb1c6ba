"""Fills a shard from a snapshot: as it was, or dealt anew to another number of shards, of another size or task list."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from replay.snapshots.snapshot import Place, SnapshotError, extremes_of, pieces_of
from replay.store.ring import TaskRing, unpack
from replay.store.rows import LAST, NOT_DRAWN, Rows
from replay.store.storage import Storage, StorageSpec, spec_from_json

SEGMENTS_AT_ONCE = 256


def is_exact(manifest: dict[str, Any], shards: int, spec: StorageSpec) -> bool:
    """Whether a shard among `shards` of `spec` can hold exactly what the manifest's shard held."""
    saved = spec_from_json(manifest["spec"])
    return bool(manifest["shards"] == shards and saved.layout() == spec.layout())


def restore_exactly(storage: Storage, place: Place, manifest: dict[str, Any]) -> None:
    """Every row at its number, and the generator where it was: the next sample is what it would have been."""
    bounds = manifest["bounds"]
    for task, ring in enumerate(storage.rings):
        ring.bounds[:] = (*bounds[task], 0)
    for piece, packed, flags in place.read(manifest, pieces_of(manifest)):
        ring = storage.rings[piece.task]
        skipped = max(0, ring.tail - piece.first)  # given up before the snapshot, but in a piece with what was not
        ring.fill(piece.first + skipped, packed[skipped:], flags[skipped:])
        ring.bounds[2] += np.count_nonzero((flags[skipped:] & NOT_DRAWN) == 0)
    storage.return_minimum[:], storage.return_maximum[:] = extremes_of(manifest)
    storage.rng.bit_generator.state = manifest["counters"]["rng"]


def restore_dealt(storage: Storage, place: Place, manifests: Sequence[dict[str, Any]], index: int, shards: int) -> None:
    """Every `shards`-th segment of the snapshot, beginning with number `index`, oldest first and the oldest dropped.

    Age is counted in segments from a shard's newest. Tasks go by name: those that the snapshot does not
    know stay empty, and it must not know others.
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
    """(how many segments of the shard are newer, rows) of every segment of a task, oldest first."""
    spec, tail = spec_from_json(manifest["spec"]), manifest["bounds"][task][1]
    pieces = sorted((piece for piece in pieces_of(manifest) if piece.task == task), key=lambda piece: piece.first)
    newer = sum(piece.segments for piece in pieces)
    for piece, packed, flags in place.read(manifest, pieces):
        rows = unpack(packed, flags, spec.observation_shapes[task], spec.dtype, spec.action_size)
        start = 0
        for stop in np.flatnonzero(flags & LAST) + 1:
            newer -= 1
            if piece.first + start >= tail:  # else given up before the snapshot, but in a piece with what was not
                yield newer, Rows(*(array[start:stop] for array in rows))
            start = int(stop)


def add(ring: TaskRing, segments: list[Rows]) -> None:
    """Append segments, as many of the newest as fit. Actions of a smaller size are padded with zeros."""
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
