"""The proven optimum on the CPU: what atoms gain, and what each two concepts share (docs/optimal.md)."""

from __future__ import annotations

import numpy as np

from ccx.kernels.cpu._jit import jit


@jit
def atom_gains(cells, counts, q, p):
    """Positive values of atoms: int64[G], int64[G] -> int64[G] = max(q * count - p * (cells - count), 0)."""
    gains = np.empty(cells.size, np.int64)
    for g in range(cells.size):
        gains[g] = max(q * counts[g] - p * (cells[g] - counts[g]), np.int64(0))
    return gains


@jit
def shared(atom_starts, atom_concepts, order, n_concepts, counts, gains):
    """Add up counts and gains of atoms, int64[G], by each two concepts: int64[n, n] each, in the order int32[n].

    Atoms without a count gain nothing.
    """
    n = order.size
    ranks = np.full(n_concepts, np.int32(-1))
    for rank in range(n):
        ranks[order[rank]] = rank
    of_counts = np.zeros((n, n), np.int64)
    of_gains = np.zeros((n, n), np.int64)
    held = np.empty(n, np.int32)
    for g in range(counts.size):
        if counts[g] == 0:
            continue
        n_held = 0
        for i in range(atom_starts[g], atom_starts[g + 1]):
            rank = ranks[atom_concepts[i]]
            if rank >= 0:
                held[n_held] = rank
                n_held += 1
        for i in range(n_held):
            for j in range(n_held):
                of_counts[held[i], held[j]] += counts[g]
                of_gains[held[i], held[j]] += gains[g]
    return of_counts, of_gains
