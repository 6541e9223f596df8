"""Histograms of permuted bitmaps on the GPU; `ccx.kernels.permutations` documents, `permutations.cuh` computes.

The bitmap and the atoms lie on the GPU; orders lie on the host and are copied over: 4 bytes per sample and order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ccx.errors import ShapeError
from ccx.kernels.cuda.activations import atom_arrays
from ccx.kernels.cuda.device import device_of, launch
from ccx.typing import Array, IntArray

if TYPE_CHECKING:
    from ccx.kernels.atoms import Atoms

# The counts of a block in shared memory: 36 atoms for each of 256 orders, and room for five blocks on a multiprocessor.
_TABLE_SLOTS = 9216


def permuted_histogram(rows: Array, permutations: IntArray, atoms: Atoms, threads: int | None) -> Array:
    device = device_of(rows, atoms.cell_atoms, atoms.sample_starts, atoms.sample_atoms)
    n_orders, n_samples = permutations.shape
    n_cells = math.prod(atoms.shape)
    if n_samples * n_cells >= 1 << 32:
        wanted, remedy = "fewer than 2^32 cells in all samples on the GPU", "use fewer samples or a coarser grid"
        raise ShapeError("atoms", wanted=wanted, got=f"{n_samples} x {n_cells}", remedy=remedy)
    counts = device.zeros((atoms.n_atoms, n_orders), np.uint32)
    cell_atoms, *entries = atom_arrays(device, atoms)
    args = (
        device.contiguous(rows, np.uint64),
        device.upload(np.ascontiguousarray(permutations, np.int32)),
        cell_atoms,
        *entries,
        counts,
        *map(np.int64, (n_orders, n_samples, n_cells)),
        np.int32(_TABLE_SLOTS),
    )
    n_blocks = n_samples * -(-n_orders // device.threads_per_block)
    name = f"permuted_histogram_u{8 * cell_atoms.dtype.itemsize}"
    launch(device, "permutations", name, n_blocks * device.threads_per_block, args, 4 * _TABLE_SLOTS)
    return device.contiguous(counts.T, np.int64)
