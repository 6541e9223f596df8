"""Sparse activations on the CPU; `ccx.kernels.sparse` documents."""

from __future__ import annotations

import numpy as np

from ccx.kernels.cpu._jit import jit
from ccx.kernels.rows import n_words


def sparse_histogram(cells, values, ranges, atoms):
    counts = np.zeros((len(ranges), atoms.n_atoms), np.int64)
    n_cells = atoms.shape[0] * atoms.shape[1]
    for k, (lower, upper) in enumerate(ranges.tolist()):
        holds_zero = lower < 0 < upper
        if holds_zero:
            counts[k] = atoms.cells
        _add_inside(
            cells, values, lower, upper, holds_zero, n_cells,
            atoms.cell_atoms, atoms.sample_starts, atoms.sample_atoms, counts[k],
        )  # fmt: skip
    return counts


@jit
def _add_inside(cells, values, lower, upper, holds_zero, n_cells, cell_atoms, sample_starts, sample_atoms, counts):
    """Add the cells inside a range; of one that holds 0, take away those outside."""
    for i in range(cells.size):
        value = np.float64(values[i])
        inside = lower < value < upper
        if inside == holds_zero:
            continue
        sample = cells[i] // n_cells
        entry = sample_starts[sample] + np.int64(cell_atoms[sample, cells[i] - sample * n_cells])
        if entry < sample_starts[sample + 1]:  # cells that are not valid have no atom
            counts[sample_atoms[entry]] += np.int64(1) if inside else np.int64(-1)


def sparse_pack(cells, values, limits, n_samples, n_cells):
    lower, upper = limits
    rows = np.zeros((n_samples, n_words(n_cells)), np.uint64)
    holds_zero = lower < 0 < upper
    if holds_zero:
        rows[:] = np.uint64(2**64 - 1)
        if n_cells % 64:
            rows[:, -1] = np.uint64(2 ** (n_cells % 64) - 1)
    _flip(cells, values, lower, upper, holds_zero, n_cells, rows)
    return rows


@jit
def _flip(cells, values, lower, upper, holds_zero, n_cells, rows):
    for i in range(cells.size):
        value = np.float64(values[i])
        if (lower < value < upper) != holds_zero:
            sample = cells[i] // n_cells
            cell = cells[i] - sample * n_cells
            rows[sample, cell // 64] ^= np.uint64(1) << np.uint64(cell % 64)
