"""What each two concepts share: bounds and exact counts of the proven optimum (docs/optimal.md).

They are the host's work on every device. Concepts are numbered by gain, descending, in square int64 matrices over the
concepts that may occur.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ccx.kernels import cpu
from ccx.kernels.atoms import Atoms, concept_counts
from ccx.typing import BoolArray, Int32Array, IntArray


class Pairs(NamedTuple):
    """What each two of n concepts share, int64[n, n] each; the diagonal is the concepts themselves.

    `order` int32[n]: the concepts' indices, by gain, descending. `values` is ``q * hits - p * (cells - hits)``, and
    `gains` the part of it that atoms of positive value contribute.
    """

    order: Int32Array
    values: IntArray
    gains: IntArray
    q: int
    p: int


def pairs_of(atoms: Atoms, counts: IntArray, q: int, p: int, usable: BoolArray) -> Pairs:
    """Build `Pairs` of the usable concepts for a bitmap's histogram int64[G]."""
    of_atoms, of_concepts = gains_of(atoms, counts, q, p)
    chosen = np.flatnonzero(usable)
    order = chosen[np.argsort(-of_concepts[chosen], kind="stable")].astype(np.int32)
    hits, gains = cpu.concept_pairs.shared(atoms.atom_starts, atoms.atom_concepts, order, usable.size, counts, of_atoms)
    sizes = atoms.pair_cells[order][:, order]
    if not isinstance(sizes, np.ndarray):
        sizes = sizes.toarray()
    return Pairs(order, (q + p) * hits - p * sizes, gains, q, p)


def gains_of(atoms: Atoms, counts: IntArray, q: int, p: int) -> tuple[IntArray, IntArray]:
    """Return the gain of each atom, int64[G], and of each concept, int64[C], by index."""
    of_atoms = cpu.concept_pairs.atom_gains(atoms.cells, counts, q, p)
    return of_atoms, concept_counts(atoms, of_atoms)
