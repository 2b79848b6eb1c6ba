"""Fills a shard from a snapshot: as it was, or dealt anew to another number of shards, of another size or task list."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from replay.ring import TaskRing, unpack
from replay.rows import LAST, NOT_DRAWN, Rows
from replay.snapshot import Piece, Place, SnapshotError, pieces_of
from replay.storage import Storage, StorageSpec, spec_from_json


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
    storage.return_minimum[:], storage.return_maximum[:] = manifest["extremes"]
    storage.rng.bit_generator.state = manifest["counters"]["rng"]


def restore_dealt(storage: Storage, place: Place, manifests: Sequence[dict[str, Any]], index: int, shards: int) -> None:
    """Every `shards`-th segment of the snapshot, beginning with number `index`, oldest first and the oldest dropped.

    What is of about one age in different shards is taken together. Tasks go by name: those that the snapshot does not
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
            least, greatest = (side[old] for side in manifest["extremes"])
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
    newest_first = [
        [(manifest, piece) for piece in reversed(pieces_of(manifest)) if piece.task == old] for manifest in manifests
    ]
    rounds = list(zip_longest(*(sorted(pieces, key=stop_of, reverse=True) for pieces in newest_first)))
    dealt = 0
    for pieces in reversed(rounds):
        for found in pieces:
            if found is None:
                continue
            manifest, piece = found
            saved = spec_from_json(manifest["spec"])
            ((_, packed, flags),) = place.read(manifest, [piece])
            skipped = max(0, manifest["bounds"][old][1] - piece.first)
            rows = unpack(
                packed[skipped:], flags[skipped:], saved.observation_shapes[old], saved.dtype, saved.action_size
            )
            ended = (rows.flags & LAST) != 0
            segment = dealt + np.cumsum(ended) - ended
            dealt += int(np.count_nonzero(ended))
            mine = segment % shards == index
            add(storage.rings[task], Rows(*(array[mine] for array in rows)))


def stop_of(found: tuple[dict[str, Any], Piece]) -> int:
    return found[1].stop


def add(ring: TaskRing, rows: Rows) -> None:
    """Append whole segments, as many of the newest as fit. Actions of a smaller size are padded with zeros."""
    excess = len(rows.flags) - ring.rows
    if excess > 0:
        start = int(np.flatnonzero((rows.flags[excess - 1 :] & LAST) != 0)[0]) + excess
        rows = Rows(*(array[start:] for array in rows))
    if not len(rows.flags):
        return
    wide = np.zeros((len(rows.flags), ring.actions.shape[1]), np.float32)
    wide[:, : rows.actions.shape[1]] = rows.actions
    rows = rows._replace(actions=wide)
    ring.evict(len(rows.flags))
    ring.write(rows)
    ring.advance(len(rows.flags), rows.transitions)
