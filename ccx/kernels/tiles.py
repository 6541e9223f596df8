"""Tiles: cells in blocks of 64, which are compared with ranges, and counted by atom, all at once.

A tile is 8×8 cells, or 64 in a row where the grid has but one; at the edges of the grid it is filled up with cells that
carry nothing. It lists its atoms, each with a mask of 64 bits: bit ``r * columns + c`` is the cell in its row r and
column c. A range's cells in a tile are 64 bits, too, so that their number by atom is a popcount of an AND.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.jobs import parallel
from ccx.kernels import cpu
from ccx.memory import require_bytes
from ccx.typing import IntArray

if TYPE_CHECKING:
    from ccx.kernels.atoms import Atoms

_MOST_ATOMS = 16
"""Tiles of more atoms are counted by cell, which takes no longer then, and bounds the memory."""

_FEW_CELLS = 128
"""What begins a sample in tiles takes longer than to count so few cells row by row."""

_LARGE = 1 << 24  # bytes, below which memory is not looked at


class Tiles(NamedTuple):
    """The tiles of N samples, of T each: ``shape`` are their rows and columns, ``size`` those of the cells in each.

    The entries of sample n are ``starts[n]:starts[n + 1]``, int64[N + 1]; each is one atom of one tile: ``tiles`` and
    ``atoms`` (both uint16[E], or uint32[E]; the atoms are local to the sample) and ``masks`` uint64[E]. Tiles of more
    than 16 atoms have no entries: those of sample n are ``crowded[crowded_starts[n]:crowded_starts[n + 1]]``, as
    uint16[D] or uint32[D] and int64[N + 1].
    """

    size: tuple[int, int]
    shape: tuple[int, int]
    starts: IntArray
    tiles: npt.NDArray[np.unsignedinteger[Any]]
    atoms: npt.NDArray[np.unsignedinteger[Any]]
    masks: npt.NDArray[np.uint64]
    crowded_starts: IntArray
    crowded: npt.NDArray[np.unsignedinteger[Any]]


def tiles_of(atoms: Atoms, *, threads: int) -> Tiles | None:
    """Cut the cells of atoms in main memory into tiles; samples of few cells have none, and are counted by row.

    Raises
    ------
    MemoryBudgetError
        If they would not fit into memory.

    """
    height, width = atoms.shape
    if height * width < _FEW_CELLS:
        return None
    size = (1, 64) if height == 1 else (8, 8)
    shape = -(-height // size[0]), -(-width // size[1])
    # There are at most as many tiles, and as many atoms in a sample, as cells.
    number = np.dtype(np.uint16 if height * width <= np.iinfo(np.uint16).max else np.uint32)
    most = np.diff(atoms.sample_starts).max(initial=0)
    ends = np.zeros((2, atoms.n_samples + 1), np.int64)
    starts = ends[:, :-1]  # so many in each sample, at first
    tiles = Tiles(size, shape, ends[0], *_room(0, number), ends[1], np.empty(0, number))

    def cut(a: int, b: int) -> None:
        cells = (atoms.cell_atoms, atoms.sample_starts, atoms.shape)
        cpu.tiles.cut(a, b, *cells, _MOST_ATOMS, np.empty(most + 1, np.int64), *tiles)

    parallel(cut, atoms.n_samples, threads)
    ends[:, 1:], ends[:, 0] = np.cumsum(starts, axis=1), 0
    n_bytes = int((8 + 2 * number.itemsize) * ends[0, -1] + number.itemsize * ends[1, -1])
    if n_bytes > _LARGE:
        require_bytes("concepts", n_bytes, "use fewer samples or a coarser grid")
    tiles = Tiles(size, shape, ends[0], *_room(ends[0, -1], number), ends[1], np.empty(ends[1, -1], number))
    parallel(cut, atoms.n_samples, threads)
    return tiles


def _room(n: int, number: np.dtype[Any]) -> tuple[Any, Any, Any]:
    return np.empty(n, number), np.empty(n, number), np.empty(n, np.uint64)
