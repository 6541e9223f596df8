"""Formulas of three concepts of which one is the head, as docs/optimal.md defines their bounds: by truth tables."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccx.formula import canonical_ids

OR, AND, AND_NOT = 0, 1, 2
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Triple = tuple[int, int, int, int, int]  # a, op, b, op, c: canonical


def apply(left: Any, operator: int, right: Any) -> Any:
    """Return (left operator right)."""
    return (left | right, left & right, left & ~right)[operator]


def satisfying(member: BoolArray, formula: Triple) -> BoolArray:
    """``bool[G, C] -> bool[G]``: the atoms of ((a op b) op c)."""
    a, first, b, second, c = formula
    found: BoolArray = apply(apply(member[:, a], first, member[:, b]), second, member[:, c])
    return found


def canonical(formula: Any) -> Triple:
    """Return the canonical form of ((a op b) op c)."""
    a, first, b, second, c = map(int, formula)
    ids, operators = canonical_ids((a, b, c), (first, second))
    return ids[0], int(operators[0]), ids[1], int(operators[1]), ids[2]


def formulas_of(head: int, free: BoolArray, later: BoolArray) -> list[Triple]:
    """All formulas of a head and two free concepts; those that are not negated are the head and later ones."""
    others = [c for c in np.flatnonzero(free).tolist() if c != head]
    found = set()
    for pair in product(others, others):
        if pair[0] >= pair[1]:
            continue
        for (a, b, c), first, second in product(permutations((head, *pair)), range(3), range(3)):
            positive = [a, *[b] * (first != AND_NOT), *[c] * (second != AND_NOT)]
            if head in positive and all(one == head or later[one] for one in positive):
                found.add(canonical((a, first, b, second, c)))
    return sorted(found)


def bound(member: BoolArray, values: IntArray, head: int, formula: Triple) -> int:
    """``bool[G, C], int64[G]``: the most value of a formula, if only what the head shares with each is known.

    What those two share inside the head is at most the smaller gain of both there, and at least the smaller loss,
    negative; the same outside. All that either holds alone, or neither, follows.
    """
    one, other = sorted({formula[0], formula[2], formula[4]} - {head})
    table = satisfying(truth_table(member.shape[1], head, one, other), formula)
    total = 0
    for inside, of_side in ((True, table[4:]), (False, table[:4])):
        side = member[:, head] == inside
        neither, only_other, only_one, both = of_side  # of the binary numbers (head, one, other)
        u, v = (int(values[side & member[:, c]].sum()) for c in (one, other))
        gains = [int(np.maximum(values, 0)[side & member[:, c]].sum()) for c in (one, other)]
        losses = [int(np.maximum(-values, 0)[side & member[:, c]].sum()) for c in (one, other)]
        # Outside the head and both nothing satisfies a formula that begins with a concept.
        rest = int(values[side].sum()) if inside else 0
        total += max(
            both * x + only_one * (u - x) + only_other * (v - x) + neither * (rest - u - v + x)
            for x in (min(gains), -min(losses))
        )
    return total


def truth_table(n_concepts: int, head: int, one: int, other: int) -> BoolArray:
    """Return eight atoms, of the binary numbers (head, one, other)."""
    member = np.zeros((8, n_concepts), np.bool_)
    for row, bits in enumerate(product((False, True), repeat=3)):
        member[row, [head, one, other]] = bits
    return member
