"""The proven optimum on the CPU: what atoms gain (docs/optimal.md)."""

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
