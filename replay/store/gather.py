"""Copies rows at random places of an array, with the kernel of gather.c or, where none could be compiled, with numpy.

The kernel releases the interpreter's lock, so several threads sample at once and pushes are stored meanwhile.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """Part of a row to copy: out[place[i]] = source[at[i]]. Rows of either side may be apart, but not their insides.

    Both arrays have the same dtype and the same shape but for the first dimension; one row is contiguous.
    """

    source: np.ndarray
    at: np.ndarray  # (n,) int64
    out: np.ndarray


def load_kernel() -> Callable[[int, int, int, int], None] | None:
    """The compiled gather.c; None where there is none that can be loaded."""
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
    """Copy every piece of len(place) rows; `place` is int64. Indices are not checked: they must lie in the arrays."""
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
    """The same in numpy, which takes about twice as long."""
    for piece in pieces:
        piece.out[place] = piece.source[piece.at]


def row_bytes(array: np.ndarray) -> int:
    return math.prod(array.shape[1:]) * array.itemsize


def address(array: np.ndarray) -> int:
    found: int = array.__array_interface__["data"][0]
    return found
