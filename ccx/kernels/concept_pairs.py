"""What each two concepts share: bounds and exact counts of the proven optimum (docs/optimal.md).

They are the host's work on every device. Concepts are numbered by gain, descending, in square int64 matrices over the
concepts that may occur.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ccx.kernels import cpu
from ccx.kernels.atoms import Atoms, concept_counts, pair_counts
from ccx.typing import BoolArray, Int32Array, IntArray


class Pairs(NamedTuple):
    """What each two of n concepts share, int64[n, n] each; the diagonal is the concepts themselves.

    `order` int32[n]: the concepts' indices, by gain, descending. `sizes` counts cells, `hits` cells in the
    bitmap, `values` is ``q * hits - p * (sizes - hits)``, and `gains` the part of `values` that atoms of
    positive value contribute.
    """

    order: Int32Array
    sizes: IntArray
    hits: IntArray
    values: IntArray
    gains: IntArray
    q: int
    p: int


def pairs_of(
    atoms: Atoms, counts: IntArray, hits: Any, q: int, p: int, usable: BoolArray, threads: int | None
) -> Pairs:
    """Build `Pairs` for a bitmap's histogram int64[G] and the `pair_counts` of it."""
    gains = pair_counts(atoms, cpu.concept_pairs.atom_gains(atoms.cells, counts, q, p), threads=threads)
    dense = [matrix.toarray() if hasattr(matrix, "toarray") else matrix for matrix in (atoms.pair_cells, hits, gains)]
    chosen = np.flatnonzero(usable)
    order = chosen[np.argsort(-dense[2].diagonal()[chosen], kind="stable")].astype(np.int32)
    size, hit, gain = (matrix[order[:, None], order] for matrix in dense)
    return Pairs(order, size, hit, (q + p) * hit - p * size, gain, q, p)


def gains_of(atoms: Atoms, counts: IntArray, q: int, p: int) -> tuple[IntArray, IntArray]:
    """Return the gain of each atom, int64[G], and of each concept, int64[C], by index."""
    of_atoms = cpu.concept_pairs.atom_gains(atoms.cells, counts, q, p)
    return of_atoms, concept_counts(atoms, of_atoms)
