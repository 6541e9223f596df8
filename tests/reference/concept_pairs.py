"""What each two concepts share, as docs/optimal.md defines it; ``shared[a, b]`` is a sum over the atoms of both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def shared(member: NDArray[np.bool_], weights: IntArray) -> IntArray:
    """``bool[G, n], int64[G] -> int64[n, n]``: the weight of the atoms of both of two concepts."""
    table: IntArray = np.einsum("ga,gb,g->ab", member, member, weights, dtype=np.int64)
    return table
