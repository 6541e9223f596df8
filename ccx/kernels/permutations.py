"""Histograms of a bitmap whose samples were exchanged, many times at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.errors import BackendError, DTypeError, InputError, ShapeError
from ccx.jobs import check_threads
from ccx.kernels.atoms import Atoms, check_atoms
from ccx.kernels.backend import backend_for
from ccx.kernels.conversion import as_array, describe, on_gpu
from ccx.kernels.rows import as_rows, check_padding
from ccx.memory import require_bytes

__all__ = ["permuted_histogram"]

_BYTES_A_COUNT = 12  # a histogram of int64, and its working space of int32


def permuted_histogram(
    rows: Any, permutations: Any, atoms: Atoms, *, threads: int | None = None
) -> npt.NDArray[np.int64]:
    """Count the cells of each atom in one bitmap under r orders of its samples.

    rows uint64[N, n_words], permutations int[r, N] -> int64[r, G]. Entry j is the histogram
    (`bitmap_histogram`) of the bitmap ``rows[permutations[j]]``: sample n gets the row of sample
    ``permutations[j, n]``. Cells that are not valid in sample n count nowhere, whatever row it gets. Rows and atoms may
    lie on a GPU, and so does the result then; permutations are read in main memory.

    Operations: the cells of a word that are of one atom are a mask of 64 bits, built once; each permutation
    then takes an AND, a popcount and an addition per mask, however many cells the bitmap has. At the
    scale of Broden a sample of 196 words has about 1,500 masks.

    Raises
    ------
    ShapeError, DTypeError
        If `rows` or `permutations` do not fit the atoms.
    InputError
        If padding bits of a row are not zero, or a permutation names a sample that is not there.
    MemoryBudgetError
        If r histograms would not fit into memory.

    """
    check_atoms(atoms)
    n_cells = atoms.shape[0] * atoms.shape[1]
    rows = as_rows(rows, "bitmap", n_cells)
    if rows.ndim != 2 or rows.shape[0] != atoms.n_samples:
        wanted, remedy = f"uint64[{atoms.n_samples}, {rows.shape[-1]}]", "give one packed row per sample"
        raise ShapeError("bitmap", wanted=wanted, got=describe(rows), remedy=remedy)
    check_padding("bitmap", rows, n_cells)
    orders = as_array(permutations, "permutations")
    if on_gpu(orders):
        msg = "permutations are read in main memory; pass cupy.asnumpy(permutations)"
        raise BackendError(msg)
    wanted, remedy = f"int[r, {atoms.n_samples}]", "give one index of a sample for each sample"
    if orders.dtype.kind not in "iu":
        raise DTypeError("permutations", wanted=wanted, got=describe(orders), remedy=remedy)
    if orders.ndim != 2 or orders.shape[1] != atoms.n_samples:
        raise ShapeError("permutations", wanted=wanted, got=describe(orders), remedy=remedy)
    if orders.size and not (orders.min() >= 0 and orders.max() < atoms.n_samples):
        got = f"values from {orders.min()} to {orders.max()}"
        raise InputError("permutations", wanted=f"0 to {atoms.n_samples - 1}", got=got, remedy="indices start at 0")
    if not on_gpu(rows):
        require_bytes("permutations", histogram_bytes(atoms, len(orders)), "give fewer at a time")
        rows = rows.astype(np.uint64, copy=False)  # native byte order
    kernels = backend_for(rows, atoms.cell_atoms).permutations
    orders = orders.astype(np.int64, copy=False)
    counts: npt.NDArray[np.int64] = kernels.permuted_histogram(rows, orders, atoms, check_threads(threads))
    return counts


def histogram_bytes(atoms: Atoms, n: int) -> int:
    """Return how many bytes `n` permuted histograms take, with the permutations as the kernels read them."""
    return (_BYTES_A_COUNT * atoms.n_atoms + 8 * atoms.n_samples) * n
