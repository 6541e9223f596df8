"""Branch and bound over left-deep formulas on the CPU: what one formula's extensions may still reach (docs/optimal.md).

A formula's *value* is a sum over its atoms, positive parts are *gains*, negative ones *losses*. `expand` takes a
formula S that may grow by m >= 2 concepts, and bounds the value of everything that begins with (S op c), for all c
and op. At m = 2 the extensions that are left are counted at once.

`space` is a `ccx.kernels.completions.Space`; concepts are its ranks. An *item* is an operation that is no AND: 2 * c is
OR c, 2 * c + 1 is AND NOT c.
"""

from __future__ import annotations

import numpy as np

from ccx.kernels.cpu._jit import inline, jit
from ccx.kernels.cpu.item_sets import NEVER, keep_top, search_sets, sum_of
from ccx.operators import AND, AND_NOT, OR


@jit
def _satisfying(space, concepts, operators, n, inside, found):
    """Mark the atoms of a formula of n concepts with 1 and list them -> how many; `inside` is all zeros before."""
    n_found = 0
    for j in range(n):
        first = space.starts[concepts[j]]
        last = space.stops[concepts[j]]
        operator = OR if j == 0 else operators[j - 1]
        if operator == OR:
            for i in range(first, last):
                g = space.posted[i]
                if inside[g] == 0:
                    inside[g] = 1
                    found[n_found] = g
                    n_found += 1
            continue
        if operator == AND_NOT:
            for i in range(first, last):
                inside[space.posted[i]] = 0
        else:
            for i in range(first, last):
                inside[space.posted[i]] <<= 1
            for i in range(n_found):
                inside[found[i]] >>= 1
        kept = 0
        for i in range(n_found):
            if inside[found[i]]:
                found[kept] = found[i]
                kept += 1
        n_found = kept
    return n_found


@inline
def _outside(space, gains, losses_out, c, e):
    """Return at most how much is lost where c and e overlap outside S: -value(c and e and not S)."""
    gain = space.gains[c, e]
    value = space.values[c, e]
    return min(min(gain - value, min(losses_out[c], losses_out[e])), min(gain, min(gains[c], gains[e])) - value)


@inline
def _within(space, gains, losses_out, c, e):
    """Return at most value(c and e and S)."""
    gain = space.gains[c, e]
    value = space.values[c, e]
    return min(min(gain, min(gains[c], gains[e])), value + min(gain - value, min(losses_out[c], losses_out[e])))


@jit
def _interplay(space, gains, losses_out, one, two):
    """Return at most what two items are worth together beyond the sum of what each is worth, in either order."""
    c = one >> 1
    e = two >> 1
    if one & 1 and two & 1:
        return _within(space, gains, losses_out, c, e)
    outside = _outside(space, gains, losses_out, c, e)
    if not (one & 1 or two & 1):
        return outside
    return max(outside, _within(space, gains, losses_out, c, e))


@inline
def _overlap(space, gains_out, losses, c, e):
    """Return at most what three items may be worth beyond their pairs, of which c and e are two."""
    gain = space.gains[c, e]
    return min(gain, min(gains_out[c], gains_out[e])) + min(gain - space.values[c, e], min(losses[c], losses[e]))


@jit
def _sift(space, gains, gains_out, losses_out, losses, own, items, n, value, m, least):
    """Drop items that no set of up to m may hold and reach `least` -> how many are left, in `items`.

    own int64[2 C]: what each item is worth alone. Interplay is charged to the item that is worth less alone; each
    item's is bounded by its largest overlaps. Then sets are bounded by their best item, whose interplay has a sign.
    """
    n_partners = space.partners.shape[1]
    top = np.zeros(m, np.int64)
    pair_top = np.zeros(m, np.int64)
    triple_top = np.zeros(m, np.int64)
    most = np.empty(n, np.int64)
    most_beside_one = np.empty(n, np.int64)  # the same with one partner less
    beside = np.empty(n, np.int64)
    for j in range(n):
        item = items[j]
        c = item >> 1
        pair_top[:] = 0
        triple_top[:] = 0
        at = 0
        while at < n_partners:
            mass = space.masses[c, at]
            if mass <= pair_top[m - 2] and mass <= triple_top[m - 2]:
                break
            e = space.partners[c, at]
            at += 1
            if own[2 * e] < own[item] and own[2 * e + 1] < own[item]:
                continue
            interplay = np.int64(0)
            for other in range(2 * e, 2 * e + 2):
                if own[other] >= own[item]:
                    interplay = max(interplay, _interplay(space, gains, losses_out, item, other))
            keep_top(pair_top, m - 1, interplay)
            keep_top(triple_top, m - 1, _overlap(space, gains_out, losses, c, e))
        if at == n_partners:
            for _ in range(m - 1):
                keep_top(pair_top, m - 1, space.masses[c, at])
                keep_top(triple_top, m - 1, space.masses[c, at])
        most[j] = own[item] + sum_of(pair_top, m - 1)
        most_beside_one[j] = own[item] + sum_of(pair_top, m - 2)
        for k in range(m - 1):
            most[j] += k * triple_top[k]
            most_beside_one[j] += k * triple_top[k] if k < m - 2 else 0
    alive = np.zeros(n, np.bool_)
    done = np.zeros(n, np.bool_)
    for turn in range(space.effort.turns):
        best = -1
        top[:] = 0
        for j in range(n):
            if not done[j]:
                keep_top(top, m, most[j])
                if best < 0 or own[items[j]] > own[items[best]]:
                    best = j
        bound = value + sum_of(top, m)
        if best < 0 or bound < least:
            break
        rest = bound - top[m - 1]
        if turn == space.effort.turns - 1:
            for j in range(n):
                alive[j] |= not done[j] and rest + most[j] >= least
            break
        done[best] = True
        top[:] = 0
        for j in range(n):
            beside[j] = NEVER
            if not done[j] and items[j] >> 1 != items[best] >> 1 and rest + most[j] >= least:
                overlap = _overlap(space, gains_out, losses, items[best] >> 1, items[j] >> 1)
                beside[j] = most_beside_one[j] + _interplay(space, gains, losses_out, items[best], items[j])
                beside[j] += (m - 2) * overlap  # triples of the two and another
                keep_top(top, m - 1, beside[j])
        bound = value + own[items[best]] + sum_of(top, m - 1)
        if bound < least:
            continue
        alive[best] = True
        rest = bound - top[m - 2]
        for j in range(n):
            alive[j] |= beside[j] != NEVER and rest + beside[j] >= least
    kept = 0
    for j in range(n):
        if alive[j]:
            items[kept] = items[j]
            kept += 1
    return kept


@jit
def _bound_items(space, shared, gains, listed, n_atoms, used, value, m, least, worthwhile, best):
    """Bound the completions of S by up to m operations without an AND: best int64[2 C], of those with each item."""
    n_concepts = used.size
    best[:] = NEVER
    gains_out = np.empty(n_concepts, np.int64)
    losses_out = np.empty(n_concepts, np.int64)
    losses = np.empty(n_concepts, np.int64)
    top = np.zeros(m, np.int64)
    for c in range(n_concepts):
        gains_out[c] = space.gains[c, c] - gains[c]
        losses[c] = gains[c] - shared[c]
        losses_out[c] = gains_out[c] - space.values[c, c] + shared[c]
        if not used[c]:
            keep_top(top, m, max(gains_out[c], losses[c]))
    bound = value + sum_of(top, m)
    if bound < least:
        return
    rest = bound - top[m - 1]
    own = np.full(2 * n_concepts, np.int64(NEVER))
    items = np.empty(2 * n_concepts, np.int64)
    n = 0
    for c in range(n_concepts):
        if used[c]:
            continue
        if rest + gains_out[c] >= least and space.gains[c, c] >= worthwhile:
            own[2 * c] = space.values[c, c] - shared[c]
            items[n] = 2 * c
            n += 1
        if rest + losses[c] >= least and space.gains[c, c] - space.values[c, c] >= worthwhile:
            own[2 * c + 1] = -shared[c]
            items[n] = 2 * c + 1
            n += 1
    if n > space.effort.few:
        n = _sift(space, gains, gains_out, losses_out, losses, own, items, n, value, m, least)
    if n > space.effort.many:
        for j in range(n):
            best[items[j]] = bound
    elif n > 0:
        search_sets(space, listed, n_atoms, own, items, n, value, m, least, best)
        for j in range(n):
            best[items[j]] = min(best[items[j]], bound)


@jit
def _with_and(space, c, gain, gain_beside, m, most, most_beside, knows_main):
    """Bound the completions of a formula by m operations, of which the last AND is AND c.

    gain: of the formula's cells in c; gain_beside: of those outside the main concept. The operations after the AND
    are a formula of their own; what stands before is cut to c.
    """
    bound = np.int64(NEVER)
    for before in range(m):
        after = m - 1 - before
        here = min(space.gains[c, c], gain + before * space.most_shared[c])
        if space.main < 0:
            bound = max(bound, here + most[after])
            continue
        bound = max(bound, here + most_beside[after])
        if not knows_main and c != space.main:
            # The main concept comes after the AND: its cells do not depend on what stands before.
            beside = space.gains[c, c] - space.gains[c, space.main]
            bound = max(bound, min(beside, gain_beside + before * space.most_beside[c]) + most[after])
    return bound


@jit
def _bound_later_ands(space, shared, gains, gains_beside, used, m, least, most, most_beside, knows_main, best):
    """Raise best[item] to the most of completions with the item first and an AND among m more -> evaluations."""
    n_concepts = used.size
    main = space.main
    most_later = np.int64(NEVER)
    most_value = np.int64(NEVER)
    evaluations = 0
    for c in range(n_concepts):
        if used[c]:
            continue
        most_value = max(most_value, shared[c])
        if m > 1:
            most_later = max(
                most_later, _with_and(space, c, gains[c], gains_beside[c], m, most, most_beside, knows_main)
            )
    for c in range(n_concepts):
        if used[c]:
            continue
        gain_out = space.gains[c, c] - gains[c]
        if m == 1:  # ((S OR c) AND d)
            if most_value + gain_out >= least:
                evaluations += n_concepts
                for d in range(n_concepts):
                    if not used[d] and d != c:
                        bound = shared[d] + min(space.gains[c, d], min(gain_out, space.gains[d, d] - gains[d]))
                        best[2 * c] = max(best[2 * c], bound)
            continue  # ((S AND NOT c) AND d) is ((S AND d) AND NOT c), which comes in that order
        if most_later + gain_out >= least:
            knows = knows_main or c == main
            beside = gain_out
            if main >= 0:
                beside = min(gain_out, space.gains[c, c] - space.gains[c, main])
            evaluations += n_concepts
            for d in range(n_concepts):
                if used[d] or d == c:
                    continue
                new = gains[d] + min(space.gains[c, d], gain_out)
                new_beside = gains_beside[d] + min(space.gains[c, d], beside)
                best[2 * c] = max(best[2 * c], _with_and(space, d, new, new_beside, m, most, most_beside, knows))
        if most_later >= least:
            best[2 * c + 1] = max(best[2 * c + 1], most_later)
    return evaluations


@inline
def _continued(space, gain, gain_beside, gain_main, m, most, most_beside, knows_main):
    """Bound the completions of a formula by m operations by its gain: they are a formula of their own beside it.

    gain_beside: of its cells outside the main concept, gain_main: of those inside.
    """
    if space.main < 0:
        return gain + most[m]
    bound = gain + most_beside[m]
    if not knows_main:
        bound = max(bound, gain_beside + most[m])
        for before in range(m):  # AND main, after so many others
            here = min(space.gains[space.main, space.main], gain_main + before * space.most_shared[space.main])
            bound = max(bound, here + most_beside[m - 1 - before])
    return bound


@inline
def _in_order(operator, c, last_operator, last, n):
    """Return whether c stands in order behind the last operand of its run: OR, or AND and then AND NOT, ascending."""
    if operator == OR:
        return c > last or (n > 1 and last_operator != OR)
    if operator == AND:
        return last_operator != AND_NOT and (c > last or (n > 1 and last_operator != AND))
    return c > last or last_operator != AND_NOT


@jit
def doubled(rows):
    """Return a copy of an array [n, k] with room for twice as many rows."""
    more = np.empty((2 * rows.shape[0], rows.shape[1]), rows.dtype)
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            more[i, j] = rows[i, j]
    return more


@jit
def expand(space, concepts, operators, m, bound, least, most, most_beside, inside, listed):
    """Bound all extensions of a formula that may grow by m >= 2 concepts; at m = 2 count all of the next two.

    concepts int32[n], operators uint8[n - 1]; bound: of the formula; least: the least value that is wanted of
    formulas of n + m concepts; most, most_beside int64[m + n]: the most value of any formula of up to so many
    concepts, with or without the main one. inside uint8[G], zeros, and listed int32[G] are working space.

    Returns (children int64[k, 3] of c, op, bound, found int64[f, 4] of c, op, d, op, evaluations): at m > 2 the
    extensions that may reach `least`, at m = 2 what reaches it. Extensions of a run of one connective are left out
    that are not in order: they are the same formulas as others.
    """
    n = concepts.size
    n_concepts = space.usable.size
    n_atoms = _satisfying(space, concepts, operators, n, inside, listed)
    shared = np.zeros(n_concepts + 1, np.int64)  # the last is for concepts that may not occur
    gains = np.zeros(n_concepts + 1, np.int64)
    gains_beside = np.zeros(n_concepts + 1, np.int64)
    value = np.int64(0)
    gain = np.int64(0)
    gain_beside = np.int64(0)
    for i in range(n_atoms):
        g = listed[i]
        of_atom = space.atom_values[g]
        positive = max(of_atom, np.int64(0))
        beside = np.int64(0) if space.in_main[g] else positive
        value += of_atom
        gain += positive
        gain_beside += beside
        for j in range(space.atom_starts[g], space.atom_starts[g + 1]):
            c = space.atom_ranks[j]
            shared[c] += of_atom
            gains[c] += positive
            gains_beside[c] += beside
    used = ~space.usable
    main = space.main
    knows_main = False
    for j in range(n):
        used[concepts[j]] = True
        knows_main |= concepts[j] == main
    worthwhile = least - most[n + m - 1]
    best = np.empty(2 * n_concepts, np.int64)
    _bound_items(space, shared, gains, listed, n_atoms, used, value, m, least, worthwhile, best)
    evaluations = _bound_later_ands(
        space, shared, gains, gains_beside, used, m - 1, least, most, most_beside, knows_main, best
    )
    last = concepts[n - 1]
    last_operator = np.int64(operators[n - 2]) if n > 1 else -1
    children = np.empty((16, 3), np.int64)
    found = np.empty((16, 4), np.int64)
    n_children = 0
    n_found = 0
    joint = np.empty(n_concepts + 1, np.int64)
    for c in range(n_concepts):
        if used[c]:
            continue
        losses = gains[c] - shared[c]
        gains_out = space.gains[c, c] - gains[c]
        in_main = gains[c] - gains_beside[c]
        for operator in range(3):
            if not _in_order(operator, c, last_operator, last, n):
                continue
            evaluations += 1
            if operator == OR:
                limit = best[2 * c]
                effect = gains_out
                new = gain + gains_out
                new_beside = gain_beside + gains_out
                if main >= 0:
                    new_beside = gain_beside + min(gains_out, space.gains[c, c] - space.gains[c, main])
                new_main = gain - gain_beside + (min(gains_out, space.gains[c, main]) if main >= 0 else 0)
            elif operator == AND:
                limit = bound
                effect = gain - value - losses
                new, new_beside, new_main = gains[c], gains_beside[c], in_main
            else:
                limit = best[2 * c + 1]
                effect = losses
                new, new_beside = gain - gains[c], gain_beside - gains_beside[c]
                new_main = new - new_beside
            limit = min(limit, bound)
            # Without the operation the formula is shorter by one, and differs by no more than its effect.
            if limit < least or effect < worthwhile:
                continue
            knows = knows_main or c == main
            alone = _continued(space, new, new_beside, new_main, m - 1, most, most_beside, knows)
            limit = min(limit, alone)
            if limit < least:
                continue
            if m > 2:
                if n_children == children.shape[0]:
                    children = doubled(children)
                children[n_children, 0] = c
                children[n_children, 1] = operator
                children[n_children, 2] = limit
                n_children += 1
                continue
            joint[:] = 0
            wanted = 1 if operator != OR else 0
            change = np.int64(0)
            for i in range(space.starts[c], space.stops[c]):
                g = space.posted[i]
                if inside[g] == wanted:
                    change += space.atom_values[g]
                    for j in range(space.atom_starts[g], space.atom_starts[g + 1]):
                        joint[space.atom_ranks[j]] += space.atom_values[g]
            total = change if operator == AND else (value + change if operator == OR else value - change)
            evaluations += 3 * n_concepts
            for d in range(n_concepts):
                if used[d] or d == c:
                    continue
                both = (
                    joint[d] if operator == AND else (shared[d] + joint[d] if operator == OR else shared[d] - joint[d])
                )
                for second in range(3):
                    reached = both
                    if second == OR:
                        reached = total + space.values[d, d] - both
                    elif second == AND_NOT:
                        reached = total - both
                    if reached >= least and _in_order(second, d, operator, c, n + 1):
                        if n_found == found.shape[0]:
                            found = doubled(found)
                        found[n_found, 0] = c
                        found[n_found, 1] = operator
                        found[n_found, 2] = d
                        found[n_found, 3] = second
                        n_found += 1
    for i in range(n_atoms):
        inside[listed[i]] = 0
    return children[:n_children], found[:n_found], evaluations
