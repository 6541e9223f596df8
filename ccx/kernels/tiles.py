"""Tiles: cells in blocks of 64, which are compared with ranges, and counted by atom, all at once.

A tile is 8×8 cells, or 64 in a row where the grid has but one; at the edges of the grid it is filled up with cells that
carry nothing. It lists its atoms, each with a mask of 64 bits: bit ``r * columns + c`` is the cell in its row r and
column c. A range's cells in a tile are 64 bits, too, so that their number by atom is a popcount of an AND.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.jobs import check_threads, parallel
from ccx.kernels import cpu
from ccx.memory import require_bytes
from ccx.typing import IntArray

if TYPE_CHECKING:
    from ccx.kernels.atoms import Atoms

_MOST_ATOMS = 16
"""Tiles of more atoms are counted by cell, which takes no longer then, and bounds the memory."""


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
    tiles: npt.NDArray[np.unsignedinteger]
    atoms: npt.NDArray[np.unsignedinteger]
    masks: npt.NDArray[np.uint64]
    crowded_starts: IntArray
    crowded: npt.NDArray[np.unsignedinteger]


def _size_of(grid: tuple[int, int]) -> tuple[int, int]:
    """Return the cells of a tile, in rows and columns: 64 together."""
    return (1, 64) if grid[0] == 1 else (8, 8)


def most_bytes(atoms: Atoms) -> int:
    """Return what the tiles of some atoms take at most."""
    n_rows, n_columns = _n_tiles(atoms.shape)
    return atoms.n_samples * n_rows * n_columns * _MOST_ATOMS * (8 + 2 * _number_type(atoms).itemsize)


def tiles_of(atoms: Atoms, *, threads: int | None = None) -> Tiles:
    """Cut the cells of atoms in main memory into tiles.

    Raises
    ------
    MemoryBudgetError
        If they would not fit into memory.

    """
    shape, size = _n_tiles(atoms.shape), _size_of(atoms.shape)
    threads, number = check_threads(threads), _number_type(atoms)
    starts = np.zeros((2, atoms.n_samples + 1), np.int64)

    def run(counting: bool, tiles: Tiles) -> None:
        def cut(a: int, b: int) -> None:
            seen = np.empty(np.diff(atoms.sample_starts[a : b + 1]).max(initial=0) + 1, np.int64)
            cells = (atoms.cell_atoms, atoms.sample_starts, atoms.shape)
            cpu.tiles.cut(a, b, *cells, size, shape, _MOST_ATOMS, seen, counting, *tiles[2:])

        parallel(cut, atoms.n_samples, threads)

    def of(n_entries: int, n_crowded: int) -> Tiles:
        entries = (np.empty(n_entries, number), np.empty(n_entries, number), np.empty(n_entries, np.uint64))
        return Tiles(size, shape, starts[0], *entries, starts[1], np.empty(n_crowded, number))

    run(True, of(0, 0))
    starts[:, 1:] = np.cumsum(starts[:, :-1], axis=1)
    starts[:, 0] = 0
    n_entries, n_crowded = map(int, starts[:, -1])
    require_bytes("concepts", (8 + 2 * number.itemsize) * n_entries, "use fewer samples or a coarser grid")
    tiles = of(n_entries, n_crowded)
    run(False, tiles)
    return tiles


def _n_tiles(grid: tuple[int, int]) -> tuple[int, int]:
    rows, columns = _size_of(grid)
    return -(-grid[0] // rows), -(-grid[1] // columns)


def _number_type(atoms: Atoms) -> np.dtype[np.unsignedinteger]:
    """Return the type of numbers of atoms in a sample, and of its tiles, of which there are at most as many as cells."""
    small = atoms.shape[0] * atoms.shape[1] <= np.iinfo(np.uint16).max
    return np.dtype(np.uint16 if small else np.uint32)
