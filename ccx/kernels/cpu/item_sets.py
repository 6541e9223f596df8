"""The search of the sets of items that may follow a formula: the last step of the bounds (docs/optimal.md).

`space` and items are those of `ccx.kernels.cpu.completions`.
"""

from __future__ import annotations

import numpy as np

from ccx.kernels.cpu._jit import inline, jit

NEVER = -(1 << 62)


@inline
def keep_top(top, k, value):
    """Let `value` into top[:k], which descends."""
    if k > 0 and value > top[k - 1]:
        i = k - 1
        while i > 0 and top[i - 1] < value:
            top[i] = top[i - 1]
            i -= 1
        top[i] = value


@inline
def sum_of(top, k):
    """Return what top[:k] add up to."""
    total = np.int64(0)
    for i in range(k):
        total += top[i]
    return total


@inline
def _hope(worth, overlaps, partners, triples, depth, left, j):
    """Return at most what item j adds to a set that lacks `left`: its worth, and its interplay with those to come."""
    return worth[depth, j] + partners[j, left - 1] + triples[j, left - 1] + (left - 1) * overlaps[depth, j]


@jit
def _within_formula(space, listed, n_atoms, items, n):
    """Count what each two of the items' concepts share inside S: (place of each concept, values, gains int64[k, k])."""
    place = np.full(space.usable.size + 1, -1)
    k = 0
    for j in range(n):
        if place[items[j] >> 1] < 0:
            place[items[j] >> 1] = k
            k += 1
    values = np.zeros((k, k), np.int64)
    gains = np.zeros((k, k), np.int64)
    for i in range(n_atoms):
        g = listed[i]
        value = space.atom_values[g]
        gain = max(value, np.int64(0))
        for first in range(space.atom_starts[g], space.atom_starts[g + 1]):
            row = place[space.atom_ranks[first]]
            if row < 0:
                continue
            for second in range(space.atom_starts[g], first):
                column = place[space.atom_ranks[second]]
                if column >= 0:
                    values[row, column] += value
                    values[column, row] += value
                    gains[row, column] += gain
                    gains[column, row] += gain
    return place, values, gains


@jit
def search_sets(space, listed, n_atoms, own, items, n, value, m, least, best):
    """Search the sets of up to m items: best[item] = the most that a set which holds it may reach.

    Pairs of items are worth their interplay, with its sign, and triples at most the least of their three overlaps.
    The search stops refining after a number of steps, and then bounds what is left.
    """
    place, values, gains = _within_formula(space, listed, n_atoms, items, n)
    weights = np.empty(n, np.int64)
    for j in range(n):
        weights[j] = -own[items[j]]
    ordered = items[:n][np.argsort(weights, kind="mergesort")]
    pair = np.zeros((n, n), np.int64)
    triple = np.zeros((n, n) if m > 2 else (1, 1), np.int64)
    partners = np.zeros((n, m), np.int64)  # the k largest interplays with items that are worth more alone
    triples = np.zeros((n, m), np.int64)  # of the same with each other
    top = np.zeros(m, np.int64)
    other_top = np.zeros(m, np.int64)
    for j in range(n):
        c = ordered[j] >> 1
        top[:] = 0
        other_top[:] = 0
        for i in range(j):
            e = ordered[i] >> 1
            if e == c:
                pair[i, j] = NEVER
                continue
            if space.gains[c, e] == 0 and space.values[c, e] == 0:
                continue
            within = values[place[c], place[e]]
            gain_within = gains[place[c], place[e]]
            pair[i, j] = within - space.values[c, e]
            if ordered[i] & 1 and ordered[j] & 1:
                pair[i, j] = within
            elif ordered[i] & 1 or ordered[j] & 1:
                pair[i, j] = max(within, pair[i, j])
            keep_top(top, m - 1, pair[i, j])
            if m > 2:
                triple[i, j] = (space.gains[c, e] - gain_within) + (gain_within - within)
                keep_top(other_top, m - 1, triple[i, j])
        for k in range(m - 1):
            partners[j, k + 1] = partners[j, k] + top[k]
            triples[j, k + 1] = triples[j, k] + k * other_top[k]
    worth = np.empty((m, n), np.int64)  # of each item beside those chosen
    overlaps = np.zeros((m, n), np.int64)  # of each item with those chosen, added up
    for j in range(n):
        worth[0, j] = own[ordered[j]]
    chosen = np.empty(m, np.int64)
    following = np.zeros(m, np.int64)
    rests = np.zeros(m, np.int64)
    totals = np.empty(m, np.int64)
    totals[0] = value
    steps = 0
    depth = 0
    entered = True
    while depth >= 0:
        left = m - depth
        if entered:
            entered = False
            start = chosen[depth - 1] + 1 if depth else 0
            top[:] = 0
            for j in range(start, n):
                if worth[depth, j] != NEVER:
                    keep_top(top, left, _hope(worth, overlaps, partners, triples, depth, left, j))
            steps += n - start
            for i in range(depth):
                best[ordered[chosen[i]]] = max(best[ordered[chosen[i]]], totals[depth])
            bound = totals[depth] + sum_of(top, left)
            if bound < least:
                depth -= 1
                continue
            rests[depth] = bound - top[left - 1]
            following[depth] = start
            if left == 1 or steps > space.effort.steps:
                for i in range(depth):
                    best[ordered[chosen[i]]] = max(best[ordered[chosen[i]]], bound)
                for j in range(start, n):
                    if worth[depth, j] != NEVER:
                        most = _hope(worth, overlaps, partners, triples, depth, left, j)
                        best[ordered[j]] = max(best[ordered[j]], min(bound, rests[depth] + most))
                depth -= 1
                continue
        j = following[depth]
        if j >= n:
            depth -= 1
            continue
        following[depth] = j + 1
        if worth[depth, j] == NEVER:
            continue
        if rests[depth] + _hope(worth, overlaps, partners, triples, depth, left, j) < least:
            continue
        chosen[depth] = j
        totals[depth + 1] = totals[depth] + worth[depth, j]
        for k in range(j + 1, n):
            if worth[depth, k] == NEVER or pair[j, k] == NEVER:
                worth[depth + 1, k] = NEVER
                continue
            most = worth[depth, k] + pair[j, k]
            if m > 2:
                for i in range(depth):
                    most += min(triple[chosen[i], j], min(triple[chosen[i], k], triple[j, k]))
                overlaps[depth + 1, k] = overlaps[depth, k] + triple[j, k]
            worth[depth + 1, k] = most
        steps += n - j
        depth += 1
        entered = True
