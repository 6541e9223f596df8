"""Histograms of a permuted bitmap, one permutation at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.reference.activations import bitmap_histogram


def permuted_histogram(
    bitmap: NDArray[np.bool_],
    permutations: NDArray[np.int64],
    sets: NDArray[np.object_],
    atoms: Sequence[frozenset[int]],
) -> NDArray[np.int64]:
    """``bool[N, P], int[r, N]``, sets of the cells ``[N, P] -> int64[r, G]``."""
    counts = [bitmap_histogram(bitmap[order], sets, atoms) for order in permutations]
    return np.array(counts, np.int64).reshape(len(permutations), len(atoms))
