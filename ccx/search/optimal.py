"""The proven optimum over all left-deep formulas (docs/optimal.md)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.formula import canonical_ids
from ccx.kernels import optimal as kernels
from ccx.search.beam import Found, SearchResult, beam_search
from ccx.search.settings import SearchSettings

IntArray = npt.NDArray[np.int64]

PROVEN_LENGTH = 3
MAX_CONCEPTS = 4_096
_MAX_SUM = 1 << 60  # of values; their sums and differences stay far below the end of int64


class Threshold(NamedTuple):
    """What a formula must reach: IoU >= `iou`, or > where `strict`."""

    iou: Fraction
    strict: bool


class Plane(NamedTuple):
    """A formula's value is q * |F and B| - p * |F and not B|; p / q is at most the IoU to be reached."""

    q: int
    p: int

    def least(self, threshold: Threshold, bitmap_cells: int) -> int:
        """Return the least value of any formula that reaches the threshold.

        IoU = i / (b + e) >= t means i - t * e >= t * b; and as p / q <= t, also i - p / q * e >= t * b.
        """
        exact = self.q * threshold.iou * bitmap_cells
        return math.floor(exact) + 1 if threshold.strict else math.ceil(exact)


def optimal_search(
    concepts: Concepts,
    counts: IntArray,
    settings: SearchSettings,
    allowed: npt.NDArray[np.bool_] | None = None,
    *,
    threads: int | None = None,
) -> SearchResult:
    """Find the best formulas of all left-deep ones of up to three distinct concepts, with proof.

    Parameters and raises as for `beam_search`; the result precedes every other formula in the tie order.

    The beam's answer is the first incumbent. Bounds from what each two concepts share leave a few pairs (a op b)
    of which an extension may still reach it; those extensions are counted exactly.

    Raises
    ------
    InputError
        If `length` is more than 3, `candidates` is given, or more than 4,096 concepts may occur.

    """
    check_provable(settings, concepts.n_concepts if allowed is None else int(allowed.sum()))
    atoms = concepts.atoms
    bitmap_cells = int(counts.sum())
    usable = np.ones(concepts.n_concepts, np.bool_) if allowed is None else allowed
    start = beam_search(concepts, counts, settings, usable, threads=threads)
    best = _Best(start.found, settings)
    visited, bounds = start.visited, 0
    pairs, plane = None, None
    for length in range(2, settings.length + 1) if start.found else ():
        threshold = best.threshold(length)
        if threshold.iou > 1:
            break  # the penalty alone keeps formulas of this length, and longer ones, away
        wanted = _plane(threshold.iou, concepts.n_cells)
        if pairs is None or wanted != plane:
            plane = wanted
            pairs = kernels.pairs_of(atoms, counts, concepts.pair_sizes, *plane, usable, threads)
        least = plane.least(threshold, bitmap_cells)
        if length == 2:
            rows = kernels.good_pairs(pairs, least)
            visited += rows.shape[0]
            best.offer(_found_pairs(rows, pairs, bitmap_cells))
            continue
        candidates, n_bounds = kernels.promising_pairs(pairs, least)
        bounds += n_bounds
        for head, group in _by_head(candidates, atoms.postings[0], pairs.order):
            least = plane.least(best.threshold(length), bitmap_cells)
            extended, n_counted = kernels.good_extensions(atoms, counts, pairs, head, group, *plane, least)
            visited += n_counted
            best.offer(_found_triples(extended, pairs.order, bitmap_cells))
    return SearchResult(
        best.found,
        visited,
        start.expanded,
        evaluations=bounds + visited,
        upper_bound=best.found[0].score(settings.length_penalty) if best.found else 0.0,
        optimal=True,
    )


def check_provable(settings: SearchSettings, n_concepts: int) -> None:
    """Raise `InputError` where `optimal_search` could not prove what it is asked for."""
    if settings.length > PROVEN_LENGTH:
        remedy = 'use search="beam" for longer formulas'
        raise InputError(
            "length", wanted=f"at most {PROVEN_LENGTH} for a proof", got=str(settings.length), remedy=remedy
        )
    if settings.candidates is not None:
        remedy = "leave it out, or restrict names"
        raise InputError("candidates", wanted="None for a proof", got=str(settings.candidates), remedy=remedy)
    if n_concepts > MAX_CONCEPTS:
        remedy = "restrict them with names or categories"
        raise InputError("concepts", wanted=f"at most {MAX_CONCEPTS} for a proof", got=str(n_concepts), remedy=remedy)


class _Best:
    """The best `top` formulas so far, in tie order."""

    def __init__(self, found: list[Found], settings: SearchSettings) -> None:
        self.found = found
        self._top = settings.top
        self._penalty = Fraction(settings.length_penalty)

    def offer(self, candidates: Iterable[Found]) -> None:
        merged = {(one.concepts, one.operators): one for one in [*self.found, *candidates]}
        self.found = sorted(merged.values(), key=lambda one: one.precedence(self._penalty))[: self._top]

    def threshold(self, length: int) -> Threshold:
        """Return what a formula of this length must reach to enter."""
        if len(self.found) < self._top:
            return Threshold(Fraction(0), strict=True)
        worst = self.found[-1]
        # Scores are equal where IoUs differ by the penalty for the difference in length; ties go to the shorter.
        iou = Fraction(worst.intersection, worst.union) * self._penalty ** (len(worst.concepts) - length)
        return Threshold(iou, strict=len(worst.concepts) < length)


def _plane(iou: Fraction, n_cells: int) -> Plane:
    """Return q and p with p / q <= iou, as close as sums of values in int64 permit."""
    q = min(iou.denominator, _MAX_SUM // max(n_cells, 1))
    return Plane(q, math.floor(iou * q))


def _by_head(
    candidates: npt.NDArray[np.int32], starts: IntArray, order: npt.NDArray[np.int32]
) -> Iterable[tuple[int, npt.NDArray[np.int32]]]:
    """Group pairs by the one of their two concepts that fewer atoms hold: those atoms are visited once a group."""
    n_atoms = np.diff(starts)[order]
    first, second = candidates[:, 0], candidates[:, 2]
    heads = np.where(n_atoms[first] <= n_atoms[second], first, second)
    for head in np.unique(heads):
        yield int(head), candidates[heads == head]


def _found_pairs(rows: npt.NDArray[np.int32], pairs: kernels.Pairs, bitmap_cells: int) -> Iterable[Found]:
    for a, operator, b in rows.tolist():
        i, f = (_of_pair(shared, a, b, operator) for shared in (pairs.hits, pairs.sizes))
        yield _canonical([a, b], [operator], i, f, pairs.order, bitmap_cells)


def _of_pair(shared: IntArray, a: int, b: int, operator: int) -> int:
    both = int(shared[a, b])
    return (int(shared[a, a]) + int(shared[b, b]) - both, both, int(shared[a, a]) - both)[operator]


def _found_triples(rows: IntArray, order: npt.NDArray[np.int32], bitmap_cells: int) -> Iterable[Found]:
    for a, first, b, second, c, i, f in rows.tolist():
        yield _canonical([a, b, c], [first, second], i, f, order, bitmap_cells)


def _canonical(
    ranks: list[int], operators: list[int], i: int, f: int, order: npt.NDArray[np.int32], bitmap_cells: int
) -> Found:
    concepts, canonical = canonical_ids([int(order[rank]) for rank in ranks], operators)
    return Found(concepts, tuple(map(int, canonical)), i, f, bitmap_cells + f - i)
