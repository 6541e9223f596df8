"""Brute force over every left-deep formula, on unpacked booleans: no atoms, no bounds, no search."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache, lru_cache
from heapq import nsmallest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccx.formula import canonical_ids


class Best(NamedTuple):
    concepts: tuple[int, ...]
    operators: tuple[int, ...]
    intersection: int
    union: int


class _Level(NamedTuple):
    """All distinct formulas of one length: formula i is `operators[i]` of one a level below and concept `last[i]`."""

    keys: list[tuple[tuple[int, ...], tuple[int, ...]]]
    parents: NDArray[np.intp]
    last: NDArray[np.intp]
    operators: NDArray[np.intp]


@cache
def _distinct(n_concepts: int, length: int) -> list[_Level]:
    """All logically distinct formulas of 1 to `length` concepts, which are the same whatever the masks are."""
    levels = []
    begun: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    known = set()
    for n in range(1, length + 1):
        longer = [
            (parent, c, op, (*ids, c), (*operators, op))
            for parent, (ids, operators) in enumerate(begun)
            for c in range(n_concepts)
            if c not in ids
            for op in range(3)
        ] if n > 1 else [(0, c, 0, (c,), ()) for c in range(n_concepts)]  # fmt: skip
        begun, keys, steps = [], [], []  # equal formulas have equal extensions: one of them is extended
        for parent, c, op, ids, operators in longer:
            concepts, canonical = canonical_ids(ids, operators)
            key = (concepts, tuple(map(int, canonical)))
            if key not in known:
                known.add(key)
                begun.append((ids, operators))
                keys.append(key)
                steps.append((parent, c, op))
        levels.append(_Level(keys, *np.array(steps, np.intp).reshape(-1, 3).T))
    return levels


def every_formula(
    masks: NDArray[np.bool_], bitmap: NDArray[np.bool_], length: int, allowed: Sequence[int] | None = None
) -> list[Best]:
    """All logically distinct formulas of 1 to `length` distinct concepts that meet the bitmap; bool[C, P], bool[P]."""
    usable = list(range(len(masks)) if allowed is None else allowed)
    concepts = cells = masks[np.array(usable, np.intp)]
    found = []
    for n, level in enumerate(_distinct(len(usable), length), start=1):
        if n > 1:
            left, right = cells[level.parents], concepts[level.last]
            cells = np.choose(level.operators[:, None], (left | right, left & right, left & ~right))
        shared = np.count_nonzero(cells & bitmap, axis=1).tolist()
        either = np.count_nonzero(cells | bitmap, axis=1).tolist()
        found += [
            Best(tuple(usable[c] for c in ids), operators, intersection, union)
            for (ids, operators), intersection, union in zip(level.keys, shared, either, strict=True)
            if intersection
        ]
    return found


@lru_cache(1 << 16)  # few different counts, many formulas
def _score(intersection: int, union: int, n_concepts: int, penalty: float) -> Fraction:
    return Fraction(intersection, union) * Fraction(penalty) ** (n_concepts - 1)


def best_formulas(found: list[Best], top: int, penalty: float = 1.0) -> list[Best]:
    """The first `top` in tie order, by exact fractions."""

    def key(one: Best) -> tuple[Fraction, int, int, tuple[int, ...], tuple[int, ...]]:
        score = _score(one.intersection, one.union, len(one.concepts), penalty)
        return -score, len(one.concepts), one.operators.count(2), one.concepts, one.operators

    return nsmallest(top, found, key)


def problems(rng: np.random.Generator, n_concepts: int, n_cells: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """One random problem of a random kind: disjoint, overlapping, nested or duplicated, empty or full concepts."""
    kind = rng.integers(4)
    masks = rng.random((n_concepts, n_cells)) < rng.random((n_concepts, 1))
    if kind == 0:
        labels = rng.integers(0, n_concepts + 1, n_cells)
        masks = np.stack([labels == c + 1 for c in range(n_concepts)])
    elif kind == 1:
        masks[rng.integers(n_concepts)] = masks[0]
        masks[rng.integers(n_concepts)] = rng.random() < 0.5
    elif kind == 2:
        masks = masks & masks[0] | masks[-1]
    bitmap = rng.random(n_cells) < rng.random()
    if n_concepts >= 3 and rng.random() < 0.6:
        a, b, c = rng.permutation(n_concepts)[:3]
        bitmap = ((masks[a] | masks[b]) & ~masks[c]) ^ (rng.random(n_cells) < rng.choice([0, 0.05, 0.3]))
    return masks, bitmap
