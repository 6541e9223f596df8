"""Histograms of permuted bitmaps on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccx.jobs import parallel
from ccx.kernels.cpu._jit import jit, popcount64
from ccx.typing import Array, IntArray

if TYPE_CHECKING:
    from ccx.kernels.atoms import Atoms

_BLOCK = 64  # atoms of a tile when the table is turned: rows of both sides stay in the cache


def permuted_histogram(rows: Array, permutations: IntArray, atoms: Atoms, threads: int | None) -> Array:
    counts = np.empty((permutations.shape[0], atoms.n_atoms), np.int64)
    # An atom has at most as many cells as there are.
    small = atoms.cell_atoms.size <= np.iinfo(np.int32).max

    def count(a, b):
        table = np.zeros((atoms.n_atoms, b - a), np.int32 if small else np.int64)
        _count(rows, permutations[a:b], atoms.cell_atoms, atoms.sample_starts, atoms.sample_atoms, table)
        _turn(table, counts[a:b])

    parallel(count, permutations.shape[0], threads)
    return counts


@jit
def _count(rows, permutations, cell_atoms, sample_starts, sample_atoms, table):
    """Add to table int[G, r], in which the counts of an atom under all permutations are neighbours.

    For each sample, `masks` hold the cells of each word by local atom; those of word w are
    ``starts[w]:starts[w + 1]``. `words` has each word of the rows that the permutations bring here, side by
    side, so that an AND, a popcount and an addition do many permutations at once.
    """
    n_samples, n_cells = cell_atoms.shape
    n_words = rows.shape[1]
    n_orders = permutations.shape[0]
    most = 0
    for n in range(n_samples):
        most = max(most, sample_starts[n + 1] - sample_starts[n])
    masks = np.empty(n_cells, np.uint64)
    atom_of = np.empty(n_cells, np.int64)
    starts = np.zeros(n_words + 1, np.int64)
    place = np.empty(most + 1, np.int64)
    words = np.empty((n_words, n_orders), np.uint64)
    local = np.zeros((most, n_orders), np.int64)
    for n in range(n_samples):
        entry = sample_starts[n]
        n_local = sample_starts[n + 1] - entry
        _masks_of(cell_atoms[n], n_local, masks, atom_of, starts, place)
        for j in range(n_orders):
            row = rows[permutations[j, n]]
            for w in range(n_words):
                words[w, j] = row[w]
        for w in range(n_words):
            brought = words[w]
            for i in range(starts[w], starts[w + 1]):
                mask = masks[i]
                counts = local[atom_of[i]]
                for j in range(n_orders):
                    counts[j] += np.int64(popcount64(mask & brought[j]))
        for i in range(n_local):
            counts = local[i]
            total = table[sample_atoms[entry + i]]
            for j in range(n_orders):
                total[j] += counts[j]
                counts[j] = 0


@jit
def _masks_of(cells, n_local, masks, atom_of, starts, place):
    """Write the masks of one sample; `place` is working space, where the last mask of each local atom stands."""
    for i in range(n_local):
        place[i] = -1
    n_masks = 0
    for w in range(starts.size - 1):
        first = n_masks
        for c in range(w * 64, min(w * 64 + 64, cells.size)):
            atom = np.int64(cells[c])
            if atom == n_local:
                continue  # not valid
            at = place[atom]
            if at < first:
                at = n_masks
                n_masks += 1
                place[atom] = at
                atom_of[at] = atom
                masks[at] = np.uint64(0)
            masks[at] |= np.uint64(1) << np.uint64(c % 64)
        starts[w + 1] = n_masks


@jit
def _turn(table, out):
    """Transpose: int[G, r] -> out int64[r, G]."""
    for first in range(0, table.shape[0], _BLOCK):
        last = min(first + _BLOCK, table.shape[0])
        for j in range(table.shape[1]):
            for g in range(first, last):
                out[j, g] = table[g, j]
