"""Copies rows at random places of an array, with the kernel in gather.c or, where that is not compiled, with numpy.

The kernel releases the interpreter's lock, so several threads can sample at once while pushes are stored.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """Part of each row to copy: out[place[i]] = source[at[i]].

    Both arrays have the same dtype, and the same shape except for the first dimension. Each row is contiguous; there
    may be gaps between rows.
    """

    source: np.ndarray
    at: np.ndarray  # (n,) int64
    out: np.ndarray


def load_kernel() -> Callable[[int, int, int, int], None] | None:
    """Return the kernel of the compiled gather.c; None if it is missing or cannot be loaded."""
    found = importlib.util.find_spec("replay.store._gather")
    if found is None or found.origin is None:
        return None
    try:
        kernel = ctypes.CDLL(found.origin).brc_gather
    except OSError:  # compiled on another machine
        return None
    kernel.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
    kernel.restype = None
    return kernel


KERNEL = load_kernel()


def gather(pieces: Sequence[Piece], place: np.ndarray) -> None:
    """Copy every piece for len(place) rows; `place` is int64. Indices are not checked: they must be in range."""
    if KERNEL is None:
        gather_numpy(pieces, place)
        return
    described = np.array(
        [
            (
                address(piece.source),
                address(piece.at),
                address(piece.out),
                piece.source.strides[0],
                row_bytes(piece.source),
                piece.out.strides[0],
            )
            for piece in pieces
        ],
        np.int64,
    )
    KERNEL(address(described), len(pieces), address(place), len(place))


def gather_numpy(pieces: Sequence[Piece], place: np.ndarray) -> None:
    """Do the same as `gather` with numpy, which takes about twice as long."""
    for piece in pieces:
        piece.out[place] = piece.source[piece.at]


def row_bytes(array: np.ndarray) -> int:
    return math.prod(array.shape[1:]) * array.itemsize


def address(array: np.ndarray) -> int:
    found: int = array.__array_interface__["data"][0]
    return found
