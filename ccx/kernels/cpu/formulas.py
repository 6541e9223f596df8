"""Formulas on the CPU: their counts over atoms, and the choice of the best extensions in a beam."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccx.jobs import parallel
from ccx.kernels.cpu._jit import inline, jit
from ccx.operators import AND, AND_NOT, OR
from ccx.typing import Array, Int32Array, UInt8Array

if TYPE_CHECKING:
    from ccx.kernels.atoms import Atoms

_LOW = np.uint64(0xFFFFFFFF)


def formula_counts(
    atoms: Atoms, weights: Array, concepts: Int32Array, operators: UInt8Array, threads: int | None
) -> Array:
    starts, posted = atoms.postings
    out = np.zeros((weights.shape[0], concepts.shape[0]), np.int64)

    def count(a, b):
        _formula_counts(starts, posted, weights, concepts[a:b], operators[a:b], out[:, a:b])

    parallel(count, concepts.shape[0], threads)
    return out


def conjunction_counts(
    atoms: Atoms, weights: Array, concepts: Int32Array, operators: UInt8Array, threads: int | None
) -> Array:
    starts, posted = atoms.postings
    out = np.zeros((weights.shape[0], concepts.shape[0], atoms.n_concepts), np.int64)

    def count(a, b):
        _conjunction_counts(
            starts, posted, atoms.atom_starts, atoms.atom_concepts, weights, concepts[a:b], operators[a:b], out[:, a:b]
        )

    parallel(count, concepts.shape[0], threads)
    return out


@jit
def _satisfying(starts, posted, concepts, operators, inside):
    """Mark the atoms that satisfy a left-deep formula: inside uint8[G], 1 or 0.

    Only the atoms of the formula's concepts are visited, but for AND, which sweeps over all bytes.
    """
    inside[:] = 0
    for i in range(starts[concepts[0]], starts[concepts[0] + 1]):
        inside[posted[i]] = 1
    for j in range(1, concepts.size):
        first = starts[concepts[j]]
        last = starts[concepts[j] + 1]
        if operators[j - 1] == OR:
            for i in range(first, last):
                inside[posted[i]] = 1
        elif operators[j - 1] == AND_NOT:
            for i in range(first, last):
                inside[posted[i]] = 0
        else:
            for i in range(first, last):
                inside[posted[i]] |= 2
            for g in range(inside.size):
                inside[g] = np.uint8(1) if inside[g] == 3 else np.uint8(0)


@jit
def _formula_counts(starts, posted, weights, concepts, operators, out):
    inside = np.empty(weights.shape[1], np.uint8)
    for f in range(concepts.shape[0]):
        _satisfying(starts, posted, concepts[f], operators[f], inside)
        for m in range(weights.shape[0]):
            total = np.int64(0)
            for g in range(inside.size):
                total += weights[m, g] if inside[g] else np.int64(0)
            out[m, f] = total


@jit
def _satisfying_list(starts, posted, concepts, operators, inside, found):
    """List the atoms that satisfy a left-deep formula, ascending -> int32[n]; `inside`, `found` are working space."""
    if concepts.size == 1:
        return posted[starts[concepts[0]] : starts[concepts[0] + 1]]
    _satisfying(starts, posted, concepts, operators, inside)
    n_found = 0
    for g in range(inside.size):  # no branch: which atoms satisfy it is unpredictable
        found[n_found] = g
        n_found += inside[g]
    return found[:n_found]


@jit
def _conjunction_counts(starts, posted, atom_starts, atom_concepts, weights, concepts, operators, out):
    inside = np.empty(weights.shape[1], np.uint8)
    found = np.empty(weights.shape[1], np.int32)
    for f in range(concepts.shape[0]):
        satisfying = _satisfying_list(starts, posted, concepts[f], operators[f], inside, found)
        for m in range(weights.shape[0]):
            weight_of = weights[m]
            counts = out[m, f]
            for g in satisfying:
                weight = weight_of[g]
                if weight:
                    for i in range(atom_starts[g], atom_starts[g + 1]):
                        counts[atom_concepts[i]] += weight


@inline
def _product(a, b):
    """Multiply two uint64 -> (high, low) words of the product."""
    a0, a1 = a & _LOW, a >> np.uint64(32)
    b0, b1 = b & _LOW, b >> np.uint64(32)
    middle = a1 * b0 + (a0 * b0 >> np.uint64(32))
    other = a0 * b1 + (middle & _LOW)
    return a1 * b1 + (middle >> np.uint64(32)) + (other >> np.uint64(32)), a * b


@jit
def compare_fractions(i1, u1, i2, u2):
    """Compare i1 / u1 with i2 / u2 exactly, for non-negative int64 -> -1, 0 or 1; x / 0 counts as 0."""
    if u1 == 0 or u2 == 0:
        one = i1 > 0 and u1 > 0
        two = i2 > 0 and u2 > 0
        return int(one) - int(two)
    high1, low1 = _product(np.uint64(i1), np.uint64(u2))
    high2, low2 = _product(np.uint64(i2), np.uint64(u1))
    if high1 != high2:
        return 1 if high1 > high2 else -1
    if low1 != low2:
        return 1 if low1 > low2 else -1
    return 0


@jit
def extend_canonical(concepts, operators, concept, operator, new_concepts, new_operators):
    """Write the canonical form of (formula operator concept), given the canonical form of the formula.

    concepts int32[n], operators uint8[n - 1] -> new_concepts int32[n + 1], new_operators uint8[n].
    The new operand joins the last run of one connective (AND and AND NOT are one), in which positive
    concepts stand first, then negated ones, both ascending; another connective starts a new run.
    """
    n = concepts.size
    run = n  # where the run that the new operand joins starts
    while run > 1 and (operators[run - 2] == OR) == (operator == OR):
        run -= 1
    if run == 1:
        run = 0  # the first concept belongs to the first run
    at = n
    while at > run:
        before = operators[at - 2] if at >= 2 else (OR if operator == OR else AND)
        negated = before == AND_NOT
        if (operator == AND_NOT) != negated:
            if operator == AND_NOT:
                break
        elif concepts[at - 1] < concept:
            break
        at -= 1
    for j in range(at):
        new_concepts[j] = concepts[j]
    new_concepts[at] = concept
    for j in range(at, n):
        new_concepts[j + 1] = concepts[j]
    for j in range(n - 1):
        new_operators[j] = operators[j]
    new_operators[n - 1] = operator
    # Operators stand before their operands: shift those of the operands behind the new one. A new first
    # operand has none, and its operator, which is not AND NOT, goes to the old first one.
    for j in range(n - 1, max(at - 1, 0), -1):
        new_operators[j] = operators[j - 1]
    new_operators[max(at - 1, 0)] = operator


@jit
def _tie_order(concepts1, operators1, concepts2, operators2):
    """Return what `_order` returns for formulas of equal score."""
    nots = 0
    for j in range(operators1.size):
        nots += int(operators1[j] == AND_NOT) - int(operators2[j] == AND_NOT)
    if nots:
        return 1 if nots < 0 else -1
    for j in range(concepts1.size):
        if concepts1[j] != concepts2[j]:
            return 1 if concepts1[j] < concepts2[j] else -1
    for j in range(operators1.size):
        if operators1[j] != operators2[j]:
            return 1 if operators1[j] < operators2[j] else -1
    return 0


@jit
def _order(i1, u1, concepts1, operators1, i2, u2, concepts2, operators2):
    """Return 1 if formula 1 precedes 2 in the tie order, -1 if 2 precedes 1, 0 if they are the same.

    Both have the same length and are in canonical form.
    """
    by_score = compare_fractions(i1, u1, i2, u2)
    if by_score:
        return by_score
    return _tie_order(concepts1, operators1, concepts2, operators2)


@jit
def _copy(source, target):
    for j in range(source.size):
        target[j] = source[j]


@jit
def best_extensions(
    concepts, operators, intersections, sizes, concept_intersections, concept_sizes,
    joint_intersections, joint_sizes, allowed, bitmap_cells, keep,
):  # fmt: skip
    """Choose the best extensions of some formulas of one length by one concept, in tie order.

    concepts int32[F, n], operators uint8[F, n - 1] in canonical form; |F and B| int64[F], |F|
    int64[F]; |c and B| int64[C], |c| int64[C]; |F and c and B| int64[F, C], |F and c| int64[F, C];
    allowed bool[C]. Returns (concepts int32[k, n + 1], operators uint8[k, n], intersections int64[k],
    sizes int64[k], evaluated), k <= keep: canonical, logically distinct, intersection > 0.
    """
    n_formulas, length = concepts.shape
    best_concepts = np.empty((keep + 1, length + 1), np.int32)
    best_operators = np.empty((keep + 1, length), np.uint8)
    best_i = np.empty(keep + 1, np.int64)
    best_f = np.empty(keep + 1, np.int64)
    new_concepts = np.empty(length + 1, np.int32)
    new_operators = np.empty(length, np.uint8)
    n_best = 0
    evaluated = 0
    # Candidates below this are worse than the worst kept; the slack absorbs the rounding of floats.
    floor = -1.0
    for f in range(n_formulas):
        for c in range(concept_sizes.size):
            if not allowed[c]:
                continue
            used = False
            for j in range(length):
                used = used or concepts[f, j] == c
            if used:
                continue
            for operator in range(3):
                evaluated += 1
                if operator == OR:
                    i = intersections[f] + concept_intersections[c] - joint_intersections[f, c]
                    size = sizes[f] + concept_sizes[c] - joint_sizes[f, c]
                elif operator == AND:
                    i = joint_intersections[f, c]
                    size = joint_sizes[f, c]
                else:
                    i = intersections[f] - joint_intersections[f, c]
                    size = sizes[f] - joint_sizes[f, c]
                union = bitmap_cells + size - i
                if i == 0 or float(i) < floor * float(union):
                    continue
                extend_canonical(concepts[f], operators[f], c, operator, new_concepts, new_operators)
                at = n_best
                same = False
                while at > 0:
                    by_order = _order(
                        i, union, new_concepts, new_operators, best_i[at - 1],
                        bitmap_cells + best_f[at - 1] - best_i[at - 1], best_concepts[at - 1], best_operators[at - 1],
                    )  # fmt: skip
                    if by_order <= 0:
                        same = by_order == 0
                        break
                    at -= 1
                if same or at == keep:
                    continue
                n_best = min(n_best + 1, keep)
                for k in range(n_best - 1, at, -1):
                    best_i[k] = best_i[k - 1]
                    best_f[k] = best_f[k - 1]
                    _copy(best_concepts[k - 1], best_concepts[k])
                    _copy(best_operators[k - 1], best_operators[k])
                best_i[at] = i
                best_f[at] = size
                _copy(new_concepts, best_concepts[at])
                _copy(new_operators, best_operators[at])
                if n_best == keep:
                    worst = keep - 1
                    floor = best_i[worst] / (bitmap_cells + best_f[worst] - best_i[worst]) * (1.0 - 1e-12)
    return best_concepts[:n_best], best_operators[:n_best], best_i[:n_best], best_f[:n_best], evaluated


@jit
def best_placed(concepts, operators, candidates, places, n_concepts, keep):
    """Choose the best of some extensions whose scores were compared before, in tie order.

    concepts int32[F, n], operators uint8[F, n - 1] in canonical form; candidates int64[m]: extension
    (f * n_concepts + c) * 3 + operator; places int64[m]: the lower, the better. Returns (chosen int64[k], indices
    of candidates, concepts int32[k, n + 1], operators uint8[k, n]), k <= keep: canonical, logically distinct.
    """
    length = concepts.shape[1]
    best = np.empty(keep + 1, np.int64)
    best_concepts = np.empty((keep + 1, length + 1), np.int32)
    best_operators = np.empty((keep + 1, length), np.uint8)
    new_concepts = np.empty(length + 1, np.int32)
    new_operators = np.empty(length, np.uint8)
    n_best = 0
    for m in range(candidates.size):
        if n_best == keep and places[m] > places[best[keep - 1]]:
            continue
        pair, operator = divmod(candidates[m], 3)
        f, c = divmod(pair, n_concepts)
        extend_canonical(concepts[f], operators[f], c, operator, new_concepts, new_operators)
        at = n_best
        same = False
        while at > 0:
            other = places[best[at - 1]]
            by_order = int(places[m] < other) - int(places[m] > other)
            if by_order == 0:
                by_order = _tie_order(new_concepts, new_operators, best_concepts[at - 1], best_operators[at - 1])
            if by_order <= 0:
                same = by_order == 0
                break
            at -= 1
        if same or at == keep:
            continue
        n_best = min(n_best + 1, keep)
        for k in range(n_best - 1, at, -1):
            best[k] = best[k - 1]
            _copy(best_concepts[k - 1], best_concepts[k])
            _copy(best_operators[k - 1], best_operators[k])
        best[at] = m
        _copy(new_concepts, best_concepts[at])
        _copy(new_operators, best_operators[at])
    return best[:n_best], best_concepts[:n_best], best_operators[:n_best]


@jit
def best_singles(intersections, sizes, allowed, bitmap_cells, keep):
    """Choose the best single concepts, in tie order: int64[C], int64[C] -> int32[<= keep], intersection > 0."""
    best = np.empty(keep + 1, np.int32)
    n_best = 0
    for c in range(sizes.size):
        if not allowed[c] or intersections[c] == 0:
            continue
        union = bitmap_cells + sizes[c] - intersections[c]
        at = n_best
        while at > 0:
            other = best[at - 1]
            other_union = bitmap_cells + sizes[other] - intersections[other]
            if compare_fractions(intersections[c], union, intersections[other], other_union) <= 0:
                break
            at -= 1
        if at == keep:
            continue
        n_best = min(n_best + 1, keep)
        for k in range(n_best - 1, at, -1):
            best[k] = best[k - 1]
        best[at] = c
    return best[:n_best]
