"""Formulas of three concepts with a known head on the CPU: their bounds, and their counts (docs/optimal.md).

A formula's *value* is q * |F and B| - p * |F and not B|: a sum over atoms, in exact int64. The value of a set of
cells is the sum of its atoms' positive parts, its *gain*, less that of the negative parts, its *loss*.
"""

from __future__ import annotations

import numpy as np

from ccx.kernels.cpu._jit import inline, jit
from ccx.kernels.cpu.completions import doubled
from ccx.operators import AND, AND_NOT, OR

# Rows of a table, each a number per concept: nothing, the value inside the head, the same negated, the value outside,
# all of it, and the gains and losses inside and outside.
_NONE, _IN, _MINUS_IN, _OUT, _ALL, _GAIN_IN, _LOSS_IN, _GAIN_OUT, _LOSS_OUT = range(9)

# A form's value: `base` times that of the head, plus a number of a, plus a number of b, and what both share inside or
# outside, added or subtracted. That is at most the smaller one of their gains, or of their losses where it is
# subtracted. Then: are a and b positive; is it the same with a and b exchanged; which operators stand first and
# second; and does the head come last.
FORMS = np.array(
    [
        (1, _OUT, _OUT, _LOSS_OUT, 1, 1, 1, OR, OR, 0),
        (0, _NONE, _IN, _GAIN_OUT, 1, 1, 0, OR, AND, 0),
        (1, _OUT, _MINUS_IN, _LOSS_OUT, 1, 0, 0, OR, AND_NOT, 0),
        (0, _IN, _ALL, _LOSS_IN, 1, 1, 0, AND, OR, 0),
        (0, _NONE, _NONE, _GAIN_IN, 1, 1, 1, AND, AND, 0),
        (0, _IN, _NONE, _LOSS_IN, 1, 0, 0, AND, AND_NOT, 0),
        (1, _MINUS_IN, _OUT, _GAIN_IN, 0, 1, 0, AND_NOT, OR, 0),
        (1, _MINUS_IN, _MINUS_IN, _GAIN_IN, 0, 0, 1, AND_NOT, AND_NOT, 0),
        (0, _IN, _IN, _LOSS_IN, 1, 1, 1, OR, AND, 1),
        (1, _NONE, _NONE, _GAIN_OUT, 1, 1, 1, AND, OR, 1),
        (1, _OUT, _NONE, _LOSS_OUT, 1, 0, 0, AND_NOT, OR, 1),
    ]
)
_ROOM = 256


@jit
def good_pairs(head, singles, shared, usable, later, q, p, least):
    """List (head op c) of value >= least: int64[m, 5] of head, c, op, |F and B|, |F|; OR and AND take `later` c."""
    out = np.empty((_ROOM, 5), np.int64)
    n_found = 0
    for c in range(usable.size):
        if c == head or not usable[c]:
            continue
        for operator in range(3):
            if operator == OR:
                size = singles[0, head] + singles[0, c] - shared[0, c]
                hits = singles[1, head] + singles[1, c] - shared[1, c]
            elif operator == AND:
                size = shared[0, c]
                hits = shared[1, c]
            else:
                size = singles[0, head] - shared[0, c]
                hits = singles[1, head] - shared[1, c]
            if (operator == AND_NOT or later[c]) and q * hits - p * (size - hits) >= least:
                if n_found == out.shape[0]:
                    out = doubled(out)
                out[n_found, 0] = head
                out[n_found, 1] = c
                out[n_found, 2] = operator
                out[n_found, 3] = hits
                out[n_found, 4] = size
                n_found += 1
    return out[:n_found]


@jit
def _candidates(own, shared, among, other, other_shared, among_other, need, out):
    """List the concepts that some other one may bring to `need` -> how many: those of a form as a, or as b."""
    most = np.int64(-(1 << 62))
    most_wide = most
    for c in range(own.size):
        if among_other[c]:
            most = max(most, other[c])
            most_wide = max(most_wide, other[c] + other_shared[c])
    n = 0
    for c in range(own.size):
        if among[c] and own[c] + shared[c] + most >= need and own[c] + most_wide >= need:
            out[n] = c
            n += 1
    return n


@jit
def open_formulas(table, own, free, later, least):
    """List (form, a, b) whose bound reaches `least`: (int32[k, 3], how many were bounded).

    table int64[9, C], free bool[C], later bool[C]: `ccx.kernels.heads`.
    """
    n = free.size
    out = np.empty((_ROOM, 3), np.int32)
    n_found = 0
    n_bounds = 0
    firsts = np.empty(n, np.int64)
    seconds = np.empty(n, np.int64)
    addends = np.empty(n, np.int64)
    limits = np.empty(n, np.int64)
    positive = free & later
    for form in range(FORMS.shape[0]):
        of_a = table[FORMS[form, 1]]
        of_b = table[FORMS[form, 2]]
        shared = table[FORMS[form, 3]]
        among_a = positive if FORMS[form, 4] else free
        among_b = positive if FORMS[form, 5] else free
        need = least - FORMS[form, 0] * own
        n_firsts = _candidates(of_a, shared, among_a, of_b, shared, among_b, need, firsts)
        if n_firsts == 0:
            continue
        n_seconds = _candidates(of_b, shared, among_b, of_a, shared, among_a, need, seconds)
        for j in range(n_seconds):
            addends[j] = of_b[seconds[j]]
            limits[j] = shared[seconds[j]]
        symmetric = FORMS[form, 6] == 1
        for i in range(n_firsts):
            a = firsts[i]
            rest = need - of_a[a]
            limit = shared[a]
            start = i + 1 if symmetric else 0
            n_bounds += n_seconds - start
            for j in range(start, n_seconds):
                if addends[j] + min(limit, limits[j]) >= rest and seconds[j] != a:
                    if n_found == out.shape[0]:
                        out = doubled(out)
                    out[n_found, 0] = form
                    out[n_found, 1] = a
                    out[n_found, 2] = seconds[j]
                    n_found += 1
    return out[:n_found], n_bounds


@inline
def _holds(atom_starts, atom_concepts, g, concept):
    for i in range(atom_starts[g], atom_starts[g + 1]):  # noqa: SIM110 - numba has no any() of a generator
        if atom_concepts[i] == concept:
            return True
    return False


@jit
def triple_counts(head, wanted, starts, posted, atom_starts, atom_concepts, cells, counts):
    """Count what a head shares with pairs of concepts: int64[2, k, C], cells and those in the bitmap.

    wanted int32[k]: one of the two; the atoms visited are its, or the head's, whichever are fewer.
    """
    out = np.zeros((2, wanted.size, starts.size - 1), np.int64)
    row_of = np.full(starts.size - 1, np.int32(-1))
    n_visited = 0
    for row in range(wanted.size):
        row_of[wanted[row]] = row
        n_visited += starts[wanted[row] + 1] - starts[wanted[row]]
    if n_visited < starts[head + 1] - starts[head]:
        for row in range(wanted.size):
            for at in range(starts[wanted[row]], starts[wanted[row] + 1]):
                g = posted[at]
                if _holds(atom_starts, atom_concepts, g, head):
                    for j in range(atom_starts[g], atom_starts[g + 1]):
                        out[0, row, atom_concepts[j]] += cells[g]
                        out[1, row, atom_concepts[j]] += counts[g]
        return out
    for at in range(starts[head], starts[head + 1]):
        g = posted[at]
        for i in range(atom_starts[g], atom_starts[g + 1]):
            row = row_of[atom_concepts[i]]
            if row >= 0:
                for j in range(atom_starts[g], atom_starts[g + 1]):
                    out[0, row, atom_concepts[j]] += cells[g]
                    out[1, row, atom_concepts[j]] += counts[g]
    return out


@jit
def counted(formulas, head, wanted, triples, rows, tables, own, q, p, least):
    """List formulas int32[k, 3] of value >= least with their counts: int64[m, 7] of a, op, b, op, c, |F and B|, |F|.

    triples, rows int64[2, k, C]: what the `wanted` concepts share with all, inside the head and altogether, as cells
    and those in the bitmap; tables int64[2, 5, C] and own int64[2]: the same of what each shares with the head.
    """
    row_of = np.full(tables.shape[2], np.int32(-1))
    for row in range(wanted.size):
        row_of[wanted[row]] = row
    out = np.empty((_ROOM, 7), np.int64)
    n_found = 0
    for k in range(formulas.shape[0]):
        form = formulas[k, 0]
        a = formulas[k, 1]
        b = formulas[k, 2]
        row, other = (row_of[a], b) if row_of[a] >= 0 else (row_of[b], a)
        shared = FORMS[form, 3]
        size = triples[0, row, other]
        hits = triples[1, row, other]
        if shared >= _GAIN_OUT:
            size = rows[0, row, other] - size
            hits = rows[1, row, other] - hits
        if shared in (_LOSS_IN, _LOSS_OUT):
            size = -size
            hits = -hits
        size += FORMS[form, 0] * own[0] + tables[0, FORMS[form, 1], a] + tables[0, FORMS[form, 2], b]
        hits += FORMS[form, 0] * own[1] + tables[1, FORMS[form, 1], a] + tables[1, FORMS[form, 2], b]
        if q * hits - p * (size - hits) < least:
            continue
        if n_found == out.shape[0]:
            out = doubled(out)
        last = FORMS[form, 9] == 1
        out[n_found, 0] = a if last else head
        out[n_found, 1] = FORMS[form, 7]
        out[n_found, 2] = b if last else a
        out[n_found, 3] = FORMS[form, 8]
        out[n_found, 4] = head if last else b
        out[n_found, 5] = hits
        out[n_found, 6] = size
        n_found += 1
    return out[:n_found]
