"""Brute force over every left-deep formula, on unpacked booleans: no atoms, no bounds, no search."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccx.formula import canonical_ids


class Best(NamedTuple):
    concepts: tuple[int, ...]
    operators: tuple[int, ...]
    intersection: int
    union: int


def every_formula(
    masks: NDArray[np.bool_], bitmap: NDArray[np.bool_], length: int, allowed: Sequence[int] | None = None
) -> list[Best]:
    """All logically distinct formulas of 1 to `length` distinct concepts that meet the bitmap; bool[C, P], bool[P]."""
    usable = range(len(masks)) if allowed is None else allowed
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], Best] = {}
    level = [((c,), (), masks[c]) for c in usable]
    for n in range(1, length + 1):
        new = []  # equal formulas have equal extensions: one of them is extended
        for ids, operators, mask in level:
            concepts, canonical = canonical_ids(ids, operators)
            key = (concepts, tuple(map(int, canonical)))
            if key not in found:
                shared = int(np.count_nonzero(mask & bitmap))
                found[key] = Best(*key, shared, int(np.count_nonzero(mask | bitmap)))
                new.append((ids, operators, mask))
        if n < length:
            level = [
                ((*ids, c), (*operators, op), (mask | masks[c], mask & masks[c], mask & ~masks[c])[op])
                for ids, operators, mask in new
                for c in usable
                if c not in ids
                for op in range(3)
            ]
    return [one for one in found.values() if one.intersection]


def best_formulas(found: list[Best], top: int, penalty: float = 1.0) -> list[Best]:
    """The first `top` in tie order, by exact fractions."""

    def key(one: Best) -> tuple[Fraction, int, int, tuple[int, ...], tuple[int, ...]]:
        score = Fraction(one.intersection, one.union) * Fraction(penalty) ** (len(one.concepts) - 1)
        return -score, len(one.concepts), one.operators.count(2), one.concepts, one.operators

    return sorted(found, key=key)[:top]


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
