"""Bounds and exact counts for the proven optimum (docs/optimal.md), which is the host's work on every device.

Concepts are numbered by gain, descending, in square int64 matrices over the concepts that may occur.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.kernels import cpu
from ccx.kernels.atoms import Atoms, concept_counts, pair_counts
from ccx.typing import IntArray


class Pairs(NamedTuple):
    """What each two of n concepts share, int64[n, n] each; the diagonal is the concepts themselves.

    `order` int32[n]: the concepts' indices, by gain, descending. `sizes` counts cells, `hits` cells in the
    bitmap, `values` is ``q * hits - p * (sizes - hits)``, and `gains` the part of `values` that atoms of
    positive value contribute.
    """

    order: npt.NDArray[np.int32]
    sizes: IntArray
    hits: IntArray
    values: IntArray
    gains: IntArray


def pairs_of(
    atoms: Atoms,
    counts: IntArray,
    sizes: Any,
    hits: Any,
    q: int,
    p: int,
    usable: npt.NDArray[np.bool_],
    threads: int | None,
) -> Pairs:
    """Build `Pairs` for a bitmap's histogram int64[G] and what two concepts share int64[C, C]: cells, and hits."""
    gains = pair_counts(atoms, cpu.optimal.atom_gains(atoms.cells, counts, q, p), threads=threads)
    dense = [matrix.toarray() if hasattr(matrix, "toarray") else matrix for matrix in (sizes, hits, gains)]
    chosen = np.flatnonzero(usable)
    order = chosen[np.argsort(-dense[2].diagonal()[chosen], kind="stable")].astype(np.int32)
    size, hit, gain = (matrix[order[:, None], order] for matrix in dense)
    return Pairs(order, size, hit, (q + p) * hit - p * size, gain)


def concept_gains(atoms: Atoms, counts: IntArray, q: int, p: int) -> IntArray:
    """Return the gain of each concept, by index: int64[C], for `pairs_of` their diagonal."""
    return concept_counts(atoms, cpu.optimal.atom_gains(atoms.cells, counts, q, p))


def good_pairs(pairs: Pairs, least: int) -> npt.NDArray[np.int32]:
    """Return all (a op b) of value >= least: int32[k, 3] of a, op, b, by a, b, op."""
    good: npt.NDArray[np.int32] = cpu.optimal.good_pairs(pairs.values, least)
    return good


def promising_pairs(
    pairs: Pairs, least: int, first: int = 0, last: int | None = None
) -> tuple[npt.NDArray[np.int32], int]:
    """Return all (a op b), first <= a < last, that one more concept may bring to `least`, and how many were bounded."""
    last = pairs.order.size if last is None else last
    found, n_bounds = cpu.optimal.promising_pairs(pairs.values, pairs.gains, least, first, last)
    return found, int(n_bounds)


def good_extensions(  # noqa: PLR0913, PLR0917 - those of the compiled function
    atoms: Atoms,
    head_atoms: npt.NDArray[np.int32],
    counts: IntArray,
    pairs: Pairs,
    head: int,
    candidates: npt.NDArray[np.int32],
    q: int,
    p: int,
    least: int,
) -> tuple[IntArray, int]:
    """Count all extensions of some pairs that share one concept, and return those of value >= least.

    head: the shared concept, head_atoms int32[...] its atoms (`Atoms.postings`); candidates int32[k, 3] of a, op, b.
    Returns (int64[m, 7] of a, op, b, op, c, |F and B|, |F|; how many were counted).
    """
    n = pairs.order.size
    partners = np.where(candidates[:, 0] == head, candidates[:, 2], candidates[:, 0])
    distinct = np.unique(partners)
    row_of = np.full(n, -1, np.int32)
    row_of[distinct] = np.arange(distinct.size)
    ranks = np.full(atoms.n_concepts, -1, np.int32)
    ranks[pairs.order] = np.arange(n)
    triples = cpu.optimal.triple_counts(
        head_atoms, atoms.atom_starts, atoms.atom_concepts, ranks, atoms.cells, counts, row_of, distinct.size, n
    )
    found, n_counted = cpu.optimal.good_extensions(
        candidates, row_of[partners], triples, pairs.sizes, pairs.hits, q, p, least
    )
    return found, int(n_counted)
