"""Left-deep formulas, evaluated on booleans; the best of them by sorting all, with exact fractions.

``member bool[C, G]`` says which columns (atoms or single cells) hold each concept, ``weights int64[..., G]``
what a column counts. Operators: 0 OR, 1 AND, 2 AND NOT.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

OR, AND, AND_NOT = 0, 1, 2
Parts = tuple[tuple[int, ...], tuple[int, ...]]  # concepts, operators


def satisfied(member: NDArray[np.bool_], concepts: Sequence[int], operators: Sequence[int]) -> NDArray[np.bool_]:
    """Return the columns that satisfy ((c0 op0 c1) op1 c2) ...: ``bool[G]``."""
    holds: NDArray[np.bool_] = member[concepts[0]]
    for concept, operator in zip(concepts[1:], operators, strict=True):
        other = member[concept]
        holds = (holds | other, holds & other, holds & ~other)[operator]
    return holds


def formula_counts(
    member: NDArray[np.bool_], weights: NDArray[np.int64], concepts: NDArray[Any], operators: NDArray[Any]
) -> NDArray[np.int64]:
    """``int64[M, G], int[F, length], int[F, length - 1] -> int64[M, F]``."""
    counts = np.zeros((len(weights), len(concepts)), np.int64)
    for f, parts in enumerate(zip(concepts, operators, strict=True)):
        counts[:, f] = weights[:, satisfied(member, *parts)].sum(axis=1)
    return counts


def conjunction_counts(
    member: NDArray[np.bool_], weights: NDArray[np.int64], concepts: NDArray[Any], operators: NDArray[Any]
) -> NDArray[np.int64]:
    """``int64[M, G], int[F, length], int[F, length - 1] -> int64[M, F, C]``."""
    counts = np.zeros((len(weights), len(concepts), len(member)), np.int64)
    for f, parts in enumerate(zip(concepts, operators, strict=True)):
        for c, other in enumerate(member):
            counts[:, f, c] = weights[:, satisfied(member, *parts) & other].sum(axis=1)
    return counts


def iou(intersection: int, union: int) -> Fraction:
    """Intersection over union; 0 where nothing is there."""
    return Fraction(intersection, union) if union else Fraction(0)


def canonical(concepts: Sequence[int], operators: Sequence[int]) -> Parts:
    """Sort each maximal run of one connective (AND NOT counts as AND): positive concepts, then negated ones."""
    if len(concepts) == 1:
        return tuple(concepts), ()
    first = 0 if operators[0] == OR else AND  # as if the first concept stood behind the connective of its run
    terms = list(zip((first, *operators), concepts, strict=True))
    runs = groupby(terms, key=lambda term: term[0] == OR)
    ordered = [term for _, run in runs for term in sorted(run, key=lambda term: (term[0] == AND_NOT, term[1]))]
    return tuple(concept for _, concept in ordered), tuple(operator for operator, _ in ordered[1:])


def tie_key(parts: Parts) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    """Order formulas of equal score: fewer concepts, fewer NOTs, smaller concepts, smaller operators."""
    concepts, operators = canonical(*parts)
    return len(concepts), operators.count(AND_NOT), concepts, operators


def best_singles(
    intersections: NDArray[np.int64],
    sizes: NDArray[np.int64],
    bitmap_cells: int,
    keep: int,
    allowed: NDArray[np.bool_],
) -> list[int]:
    """Sort all concepts that meet the bitmap by IoU, then index."""
    usable = [c for c in range(len(sizes)) if allowed[c] and intersections[c] > 0]

    def key(c: int) -> tuple[Fraction, int]:
        i = int(intersections[c])
        return -iou(i, bitmap_cells + int(sizes[c]) - i), c

    return sorted(usable, key=key)[:keep]


class Candidate(NamedTuple):
    """A formula in canonical form with its counts |F and B| and |F|."""

    parts: Parts
    intersection: int
    size: int


def best_extensions(
    member: NDArray[np.bool_],
    cells: NDArray[np.int64],
    bitmap: NDArray[np.int64],
    parents: Sequence[Parts],
    keep: int,
    allowed: NDArray[np.bool_],
) -> tuple[list[Candidate], int]:
    """Sort all extensions of the parents that meet the bitmap, equivalent ones once; and how many were counted."""
    found: dict[Parts, Candidate] = {}
    n_counted = 0
    for concepts, operators in parents:
        for c in np.flatnonzero(allowed).tolist():
            for operator in (OR, AND, AND_NOT):
                if c not in concepts:
                    n_counted += 1
                    longer = (*concepts, c), (*operators, operator)
                    columns = satisfied(member, *longer)
                    parts = canonical(*longer)
                    found[parts] = Candidate(parts, int(bitmap[columns].sum()), int(cells[columns].sum()))
    n_bitmap = int(bitmap.sum())

    def key(one: Candidate) -> tuple[Any, ...]:
        return -iou(one.intersection, n_bitmap + one.size - one.intersection), *tie_key(one.parts)

    return sorted((one for one in found.values() if one.intersection > 0), key=key)[:keep], n_counted


def best_placed(
    parents: Sequence[Parts], candidates: NDArray[np.int64], places: NDArray[np.int64], n_concepts: int, keep: int
) -> list[tuple[int, Parts]]:
    """Sort extensions, numbered (parent * n_concepts + concept) * 3 + operator, by place and ties; equal ones once."""
    found: dict[Parts, tuple[int, int]] = {}
    for m, number in enumerate(candidates.tolist()):
        pair, operator = divmod(number, 3)
        concepts, operators = parents[pair // n_concepts]
        parts = canonical((*concepts, pair % n_concepts), (*operators, operator))
        found.setdefault(parts, (int(places[m]), m))
    ranked = sorted(found.items(), key=lambda one: (one[1][0], *tie_key(one[0])))
    return [(m, parts) for parts, (_, m) in ranked[:keep]]
