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


def concept_gains(atoms: Atoms, counts: IntArray, q: int, p: int) -> IntArray:
    """Return the gain of each concept, by index: int64[C], for `pairs_of` their diagonal."""
    return concept_counts(atoms, cpu.concept_pairs.atom_gains(atoms.cells, counts, q, p))


def good_pairs(pairs: Pairs, least: int) -> Int32Array:
    """Return all (a op b) of value >= least: int32[k, 3] of a, op, b, by a, b, op."""
    good: Int32Array = cpu.concept_pairs.good_pairs(pairs.values, least)
    return good


def promising_pairs(pairs: Pairs, least: int, first: int = 0, last: int | None = None) -> tuple[Int32Array, int]:
    """Return all (a op b), first <= a < last, that one more concept may bring to `least`, and how many were bounded."""
    last = pairs.order.size if last is None else last
    found, n_bounds = cpu.concept_pairs.promising_pairs(pairs.values, pairs.gains, least, first, last)
    return found, int(n_bounds)


def good_extensions(
    atoms: Atoms, counts: IntArray, pairs: Pairs, head: int, candidates: Int32Array, least: int
) -> tuple[IntArray, int]:
    """Count all extensions of some pairs that share one concept, and return those of value >= least.

    head: the shared concept; candidates int32[k, 3] of a, op, b.
    Returns (int64[m, 7] of a, op, b, op, c, |F and B|, |F|; how many were counted).
    """
    starts, posted = atoms.postings
    concept = pairs.order[head]
    head_atoms = posted[starts[concept] : starts[concept + 1]]
    n = pairs.order.size
    partners = np.where(candidates[:, 0] == head, candidates[:, 2], candidates[:, 0])
    distinct = np.unique(partners)
    row_of = np.full(n, -1, np.int32)
    row_of[distinct] = np.arange(distinct.size)
    ranks = np.full(atoms.n_concepts, -1, np.int32)
    ranks[pairs.order] = np.arange(n)
    triples = cpu.concept_pairs.triple_counts(
        head_atoms, atoms.atom_starts, atoms.atom_concepts, ranks, atoms.cells, counts, row_of, distinct.size, n
    )
    found, n_counted = cpu.concept_pairs.good_extensions(
        candidates, row_of[partners], triples, pairs.sizes, pairs.hits, pairs.q, pairs.p, least
    )
    return found, int(n_counted)
