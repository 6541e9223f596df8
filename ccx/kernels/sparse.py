"""Sparse activations: a unit's non-zero values at the cells where they are.

Cells are numbered through all samples, ``n * H * W + cell``, ascending; every other cell's activation is 0. The values
are those of the cells of the concepts' grid: nothing is interpolated.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ccx.kernels import cpu
from ccx.kernels.atoms import Atoms
from ccx.kernels.ieee import ieee
from ccx.typing import Float32Array, IntArray


@ieee
def sparse_histogram(
    cells: IntArray, values: Float32Array, ranges: npt.NDArray[np.float64], atoms: Atoms
) -> npt.NDArray[np.int64]:
    """Count the cells of each atom in each open range: int64[n], float32[n], float64[K, 2] -> int64[K, G].

    Bytes and operations: one look at each non-zero value and its cell; where a range holds 0, the atoms' sizes once.
    """
    counts: npt.NDArray[np.int64] = cpu.sparse.sparse_histogram(cells, values, ranges, atoms)
    return counts


@ieee
def sparse_pack(
    cells: IntArray, values: Float32Array, limits: tuple[float, float], n_samples: int, n_cells: int
) -> npt.NDArray[np.uint64]:
    """Pack the cells inside an open range: int64[n], float32[n] -> uint64[N, n_words], one packed row per sample."""
    rows: npt.NDArray[np.uint64] = cpu.sparse.sparse_pack(cells, values, limits, n_samples, n_cells)
    return rows


@ieee
def sparse_quantile(values: Float32Array, n_zeros: int, share: float) -> float:
    """Return the value that a share of all activations exceeds, `n_zeros` zeros beside float32[n] included.

    ``numpy.quantile(everything.astype(float64), 1 - share, method="linear")``; there must be an activation.
    """
    total = len(values) + n_zeros
    position = (total - 1) * (1 - share)
    below = int(position)
    n_negative = int(np.count_nonzero(values < 0))

    def ranked(place: int) -> float:
        if n_negative <= place < n_negative + n_zeros:
            return 0.0
        own = place if place < n_negative else place - n_zeros
        return float(np.partition(values, own)[own])

    neighbours = [ranked(below), ranked(min(below + 1, total - 1))]
    return float(np.quantile(neighbours, position - math.floor(position), method="linear"))
