"""Bounds and counts for the proven optimum as docs/optimal.md defines them, formula by formula.

Concepts are numbered by gain, descending; ``shared[a, b]`` is a sum over the atoms of both.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

OR, AND, AND_NOT = 0, 1, 2
IntArray = NDArray[np.int64]
Pair = tuple[int, int, int]  # a, op, b


def apply(left: NDArray[np.bool_], operator: int, right: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the atoms of (left operator right)."""
    return (left | right, left & right, left & ~right)[operator]


def shared(member: NDArray[np.bool_], weights: IntArray) -> IntArray:
    """``bool[G, n], int64[G] -> int64[n, n]``: the weight of the atoms of both of two concepts."""
    table: IntArray = np.einsum("ga,gb,g->ab", member, member, weights, dtype=np.int64)
    return table


def pairs(n: int) -> list[Pair]:
    """All formulas of two of n concepts; OR and AND commute."""
    return [(a, op, b) for a, b, op in product(range(n), range(n), range(3)) if a < b or (a != b and op == AND_NOT)]


def of_pair(table: IntArray, a: int, op: int, b: int) -> int:
    """Return what (a op b) adds up to, by inclusion and exclusion."""
    one, other, both = int(table[a, a]), int(table[b, b]), int(table[a, b])
    return (one + other - both, both, one - both)[op]


def good_pairs(values: IntArray, least: int) -> list[Pair]:
    """``int64[n, n]`` -> all (a op b) of value >= least."""
    return [pair for pair in pairs(len(values)) if of_pair(values, *pair) >= least]


def promising_pairs(values: IntArray, gains: IntArray, least: int) -> tuple[list[Pair], int]:
    """``int64[n, n], int64[n, n]`` -> all (a op b) that some c may bring to `least`; how many c were tried."""
    found: list[Pair] = []
    n_tried = 0
    losses = gains - values
    for pair in pairs(len(values)):
        value, kept = of_pair(values, *pair), of_pair(gains, *pair)
        for c in range(len(values)):
            if kept < least and value + gains[c, c] < least:  # nor can any later c, as gains descend
                break
            n_tried += 1
            if c not in (pair[0], pair[2]) and most(values, gains, losses, pair, c) >= least:
                found.append(pair)
                break
    return found, n_tried


def most(values: IntArray, gains: IntArray, losses: IntArray, pair: Pair, c: int) -> int:
    """Return the largest value that ((a op b) op' c) may have, by gains and losses of two and of three concepts."""
    a, op, b = pair
    value, kept = of_pair(values, *pair), of_pair(gains, *pair)
    shares = ((a, b), (a, c), (b, c))
    x = (-min(losses[two] for two in shares), min(gains[two] for two in shares))  # bounds of v(a and b and c)
    with_c = [(values[a, c] + values[b, c] - one, one, values[a, c] - one)[op] for one in x]
    narrowed = min(kept, max(*with_c, value - min(with_c)))
    widened = value + min(gains[c, c], values[c, c] - min(with_c))
    return int(max(narrowed, widened))


def extensions(
    member: NDArray[np.bool_], cells: IntArray, counts: IntArray, chosen: Any, q: int, p: int, least: int
) -> list[tuple[int, ...]]:
    """Count extensions of pairs by every other concept; return (a, op, b, op, c, |F and B|, |F|) of value >= least."""
    found: list[tuple[int, ...]] = []
    for a, first, b in chosen:
        pair = apply(member[:, a], first, member[:, b])
        for c, second in product(range(member.shape[1]), range(3)):
            formula = apply(pair, second, member[:, c])
            hits, size = int(counts[formula].sum()), int(cells[formula].sum())
            if c not in (a, b) and q * hits - p * (size - hits) >= least:
                found.append((a, first, b, second, c, hits, size))
    return found
