"""Positions of activations, on a grid of their own, and the cells that they have a weight for.

Upsampling (`ccx.kernels.upsample`) makes each cell of up to four positions. Cells that are not valid count nowhere; so
does a position that has a weight for no other cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ccx.kernels.activations import axis_positions
from ccx.kernels.atoms import Atoms
from ccx.typing import BoolArray

Shape = tuple[int, int]

_BATCH_CELLS = 1 << 22  # looked at in one go


def cells_of(positions: BoolArray, shape: Shape) -> BoolArray:
    """Return the cells for which any of some positions has a weight: bool[N, h, w] -> bool[N, H, W]."""
    rows, cols = (_has_weight(n, n_cells) for n, n_cells in zip(positions.shape[1:], shape, strict=True))
    return _spread(positions, rows, cols)


def positions_of(cells: BoolArray, source: Shape) -> BoolArray:
    """Return the positions that have a weight for any of some cells: bool[N, H, W] -> bool[N, h, w]."""
    rows, cols = (_has_weight(n, n_cells) for n, n_cells in zip(source, cells.shape[1:], strict=True))
    return _spread(cells, rows.T, cols.T)


def valid_positions(atoms: Atoms, source: Shape) -> BoolArray | None:
    """Return the positions that count, those with a weight for a valid cell: bool[N, h, w]; None = all.

    Of a sample whose cells are all valid every position counts, also one that a coarser grid of cells passes over.
    """
    counted = np.empty((atoms.n_samples, *source), np.bool_)
    for samples, valid in _valid_cells(atoms):
        counted[samples] = positions_of(valid, source)
        counted[samples][valid.all(axis=(1, 2))] = True
    return None if counted.all() else counted


def _valid_cells(atoms: Atoms) -> Iterator[tuple[slice, BoolArray]]:
    """Yield samples, a batch at a time, and which of their cells are valid: bool[n, H, W]."""
    counts = np.diff(atoms.sample_starts)
    size = max(1, _BATCH_CELLS // (atoms.shape[0] * atoms.shape[1]))
    for start in range(0, atoms.n_samples, size):
        samples = slice(start, start + size)
        yield samples, (atoms.cell_atoms[samples] < counts[samples, None]).reshape(-1, *atoms.shape)


def _has_weight(n_samples: int, n_cells: int) -> BoolArray:
    """Return whether each sample of an axis has a weight for each cell: bool[n_cells, n_samples]."""
    axis = axis_positions(n_samples, n_cells)
    weighs = np.zeros((n_cells, n_samples), np.bool_)
    cells = np.arange(n_cells)
    weighs[cells, axis.near] = True
    weighs[cells, axis.far] |= axis.w_far != 0
    return weighs


def _spread(flags: BoolArray, rows: BoolArray, cols: BoolArray) -> BoolArray:
    """Return where any flag is that rows bool[a', a] and columns bool[b', b] join: bool[n, a, b] -> bool[n, a', b']."""
    for axis, joins in ((1, rows), (2, cols)):
        if joins.shape[0] == joins.shape[1] and joins.diagonal().all() and joins.sum() == len(joins):
            continue  # equal grids
        numbers: Any = flags.astype(np.float32)  # a sum of ones is 0 or not, however it is rounded
        weights = joins.astype(np.float32)
        flags = (weights @ numbers if axis == 1 else numbers @ weights.T) > 0
    return flags
