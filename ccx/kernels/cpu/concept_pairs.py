"""The proven optimum on the CPU: bounds from pairs of concepts, for formulas of up to three (docs/optimal.md).

A formula's *value* is q * |F and B| - p * |F and not B|: a sum over atoms, in exact int64. A formula can beat
or tie the best one known only if its value is at least some `least`. values[a, c] is the value of the cells
that carry both concepts; gains[a, c] >= 0 is the same over the atoms of positive value alone, so that
gains - values >= 0 is what the atoms of negative value take away (*losses*).

Concepts are numbered by gain, descending: loops stop where no later concept can help.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ccx.kernels.cpu._jit import inline, jit
from ccx.operators import AND, AND_NOT, OR

_ROOM = 4_096


def good_pairs(values, least):
    (found,) = _with_room(_good_pairs, values, least)
    return found


def promising_pairs(values, gains, least, first, last):
    return _with_room(_promising_pairs, values, gains, least, first, last)


def good_extensions(pairs, rows, triples, sizes, hits, q, p, least):
    return _with_room(_good_extensions, pairs, rows, triples, sizes, hits, q, p, least)


def _with_room(kernel: Callable[..., Any], *args: Any) -> Any:
    """Return what a kernel lists, and the rest that it returns; once more where the list is longer than thought."""
    found, n_found, *rest = kernel(*args, _ROOM)
    if n_found > _ROOM:
        found, *_ = kernel(*args, n_found)
    return found, *rest


@jit
def atom_gains(cells, counts, q, p):
    """Positive values of atoms: int64[G], int64[G] -> int64[G] = max(q * count - p * (cells - count), 0)."""
    gains = np.empty(cells.size, np.int64)
    for g in range(cells.size):
        gains[g] = max(q * counts[g] - p * (cells[g] - counts[g]), np.int64(0))
    return gains


@inline
def _pair(shared, a, b, operator):
    """Return what (a operator b) adds up to, given what each two concepts share."""
    if operator == OR:
        return shared[a, a] + shared[b, b] - shared[a, b]
    if operator == AND:
        return shared[a, b]
    return shared[a, a] - shared[a, b]


@jit
def _good_pairs(values, least, room):
    """List the formulas (a op b) of value >= least: (int32[k, 3] of a, op, b; how many there are)."""
    n = values.shape[0]
    out = np.empty((room, 3), np.int32)
    n_found = 0
    for a in range(n):
        for b in range(n):
            if a == b:
                continue
            for operator in range(3):
                if operator != AND_NOT and b < a:
                    continue  # OR and AND commute
                if _pair(values, a, b, operator) >= least:
                    if n_found < room:
                        out[n_found, 0] = a
                        out[n_found, 1] = operator
                        out[n_found, 2] = b
                    n_found += 1
    return out[: min(n_found, room)], n_found


@jit
def _promising_pairs(values, gains, least, first, last, room):
    """List the pairs (a op b), first <= a < last, of which an extension by a third concept may reach `least`.

    Returns (pairs int32[k, 3] of a, op, b, how many there are, how many bounds were evaluated).

    An OR adds at most the gain of one concept; an AND or AND NOT keeps at most the gain of the pair. Where that
    does not decide, the third concept c is tried: what all three share is bounded by what each two share,
    -min(losses) <= v(a and b and c) <= min(gains).
    """
    n = values.shape[0]
    out = np.empty((room, 3), np.int32)
    n_found = 0
    n_bounds = 0
    for a in range(first, last):
        for b in range(n):
            if a == b:
                continue
            for operator in range(3):
                if operator != AND_NOT and b < a:
                    continue
                value = _pair(values, a, b, operator)
                narrow = _pair(gains, a, b, operator) >= least
                if not narrow and value + gains[0, 0] < least:
                    continue
                promising, tried = _may_reach(values, gains, a, b, operator, value, narrow, least)
                n_bounds += tried
                if promising:
                    if n_found < room:
                        out[n_found, 0] = a
                        out[n_found, 1] = operator
                        out[n_found, 2] = b
                    n_found += 1
    return out[: min(n_found, room)], n_found, n_bounds


@jit
def _may_reach(values, gains, a, b, operator, value, narrow, least):
    """Return whether some ((a operator b) op c) may reach `least`, and how many c were tried."""
    gain_ab = gains[a, b]
    loss_ab = gain_ab - values[a, b]
    for c in range(values.shape[0]):
        wide = value + gains[c, c] >= least
        if not (narrow or wide):
            return False, c
        if c in (a, b):
            continue
        most = min(gain_ab, min(gains[a, c], gains[b, c]))  # v(a and b and c) at most
        least_abc = -min(loss_ab, min(gains[a, c] - values[a, c], gains[b, c] - values[b, c]))
        if operator == OR:
            shared = values[a, c] + values[b, c]
            upper, lower = shared - least_abc, shared - most
        elif operator == AND:
            upper, lower = most, least_abc
        else:
            upper, lower = values[a, c] - least_abc, values[a, c] - most
        # lower <= v((a op b) and c) <= upper
        if wide and value + values[c, c] - lower >= least:
            return True, c + 1
        if narrow and (upper >= least or value - lower >= least):
            return True, c + 1
    return False, values.shape[0]


@jit
def triple_counts(head_atoms, atom_starts, atom_concepts, ranks, cells, counts, row_of, n_rows, n):
    """Count what a concept shares with pairs of others: int64[2, n_rows, n], cells and those in the bitmap.

    head_atoms int32[...]: the atoms of one concept; ranks int32[C]: number of each concept, -1 = left out;
    row_of int32[n]: the row of each partner concept, -1 = none.
    """
    out = np.zeros((2, n_rows, n), np.int64)
    for at in range(head_atoms.size):
        g = head_atoms[at]
        one = cells[g]
        two = counts[g]
        for i in range(atom_starts[g], atom_starts[g + 1]):
            partner = ranks[atom_concepts[i]]
            if partner < 0 or row_of[partner] < 0:
                continue
            row = row_of[partner]
            for j in range(atom_starts[g], atom_starts[g + 1]):
                other = ranks[atom_concepts[j]]
                if other >= 0:
                    out[0, row, other] += one
                    out[1, row, other] += two
    return out


@jit
def _good_extensions(pairs, rows, triples, sizes, hits, q, p, least, room):
    """List the extensions of some pairs of value >= least, by exact counts.

    pairs int32[k, 3]; rows int32[k]: the row of each pair in `triples` int64[2, n_rows, n]; sizes, hits
    int64[n, n]: cells of each two concepts, altogether and in the bitmap. Returns (found int64[m, 7] of
    a, op, b, op, c, |F and B|, |F|; how many there are; how many were counted).
    """
    n = sizes.shape[0]
    out = np.empty((room, 7), np.int64)
    n_found = 0
    n_counted = 0
    for k in range(pairs.shape[0]):
        a, first, b = pairs[k]
        pair_i = _pair(hits, a, b, first)
        pair_f = _pair(sizes, a, b, first)
        for c in range(n):
            if c in (a, b):
                continue
            both_f = triples[0, rows[k], c]
            both_i = triples[1, rows[k], c]
            if first == OR:
                both_f = sizes[a, c] + sizes[b, c] - both_f
                both_i = hits[a, c] + hits[b, c] - both_i
            elif first == AND_NOT:
                both_f = sizes[a, c] - both_f
                both_i = hits[a, c] - both_i
            for operator in range(3):
                if operator == OR:
                    i = pair_i + hits[c, c] - both_i
                    f = pair_f + sizes[c, c] - both_f
                elif operator == AND:
                    i = both_i
                    f = both_f
                else:
                    i = pair_i - both_i
                    f = pair_f - both_f
                n_counted += 1
                if q * i - p * (f - i) >= least:
                    if n_found < room:
                        out[n_found, 0] = a
                        out[n_found, 1] = first
                        out[n_found, 2] = b
                        out[n_found, 3] = operator
                        out[n_found, 4] = c
                        out[n_found, 5] = i
                        out[n_found, 6] = f
                    n_found += 1
    return out[: min(n_found, room)], n_found, n_counted
