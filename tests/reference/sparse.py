"""Oracle of `ccx.kernels.sparse`: sparse activations spread over all cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.reference.activations import bitmap_histogram, inside
from tests.reference.rows import pack


def dense(cells: NDArray[np.int64], values: NDArray[np.float32], n_all: int) -> NDArray[np.float32]:
    """``int64[n], float32[n] -> float32[n_all]``."""
    everything = np.zeros(n_all, np.float32)
    everything[cells] = values
    return everything


def sparse_histogram(
    cells: NDArray[np.int64],
    values: NDArray[np.float32],
    ranges: NDArray[np.float64],
    sets: NDArray[np.object_],
    atoms: Sequence[frozenset[int]],
) -> NDArray[np.int64]:
    """``int64[n], float32[n], float64[K, 2]``, sets of the cells ``[N, P] -> int64[K, G]``."""
    everything = dense(cells, values, sets.size).reshape(sets.shape)
    counts = [bitmap_histogram(inside(everything, pair)[None], sets, atoms)[0] for pair in ranges]
    return np.array(counts, np.int64).reshape(len(ranges), len(atoms))


def sparse_pack(
    cells: NDArray[np.int64], values: NDArray[np.float32], limits: tuple[float, float], n_samples: int, n_cells: int
) -> NDArray[np.uint64]:
    """``int64[n], float32[n] -> uint64[N, n_words]``."""
    return pack(inside(dense(cells, values, n_samples * n_cells), limits).reshape(n_samples, n_cells))
