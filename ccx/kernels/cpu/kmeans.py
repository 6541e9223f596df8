"""Globally optimal k-means of sorted values: branch and bound over intervals of split positions.

A clustering of sorted values is a list of splits. The classical dynamic programme over them costs
O(k n log n) with divide and conquer, because the cost of a cluster satisfies the quadrangle inequality
(Grønlund et al., "Fast exact k-means, k-medians and Bregman divergence clustering in 1D", 2017;
Wang and Song, "Ckmeans.1d.dp", 2011). Here the same programme first runs over *intervals* of
positions. When a split may lie anywhere in an interval, the values inside are left out of both neighbouring
clusters. Leaving values out never raises a sum of squares, and the quadrangle inequality survives
it, so this is a lower bound on every clustering with a split there. An interval whose lower bound
exceeds the cost of a known clustering cannot hold an optimal split. The others are cut into
`_FAN_OUT` pieces, until every interval is one position and the lower bound is the cost itself.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ccx.kernels.cpu._jit import jit
from ccx.typing import FloatArray, IntArray

Intervals: TypeAlias = tuple[IntArray, IntArray]
"""First and last split position of each interval: both ``int64[m]``, ascending and disjoint."""


class _Layer(NamedTuple):
    """The intervals in which one split may lie, and their table."""

    first: IntArray
    last: IntArray
    table: FloatArray


_MARK = 32  # values between two stored prefix sums; a prefix sum elsewhere adds at most 31 values to one
_FAN_OUT = 8  # pieces into which a surviving interval is cut
_COARSEST = 1024  # at most about this many intervals in the first round
_MARGIN = 1 + 2.0**-26  # far above the rounding errors of two costs that are compared, far below a useful bound
_TIE = 1 - 2.0**-48  # costs this close are equal: exact ties must not hang on how a sum was rounded

# Rows of a table: what a cluster's cost needs to know of the split that bounds it.
_POSITION, _SUM, _SUM_LOW, _SQUARES, _SQUARES_LOW, _VALUE, _N_ROWS = range(7)
_FIRST, _LAST = 0, 1


# --- sums twice as long as a float64 ------------------------------------------------------------------
#
# A cluster's cost is a small difference of large sums, so plain float64 sums fail on tight clusters far
# from the origin. Each sum is an unevaluated pair (high, low) of float64, of about 106 bits (Dekker 1971;
# Ogita, Rump and Oishi 2005). A float32 squared is exact in float64, and sums that run outwards from zero never
# cancel, so their error is about 2**-104 n x**2, with x the outermost value. A cluster that ends in x and
# holds another value costs at least (2**-24 x)**2 / 2, whatever the data. Hence every cost is known to
# a relative 1e-9 or better for n up to millions.


@jit
def _two_sum(a, b):
    """Return a + b, rounded, and exactly what the rounding lost."""
    total = a + b
    added = total - a
    return total, (a - (total - added)) + (b - added)


@jit
def _two_product(a, b):
    """Return a * b, rounded, and exactly what the rounding lost."""
    product = a * b
    scaled_a = 134217729.0 * a  # 2**27 + 1: splits 53 bits into 26 + 26 and a sign
    high_a = scaled_a - (scaled_a - a)
    low_a = a - high_a
    scaled_b = 134217729.0 * b
    high_b = scaled_b - (scaled_b - b)
    low_b = b - high_b
    return product, ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b


@jit
def _pair(high_a, low_a, high_b, low_b):
    """Return the pair a + b."""
    high, low = _two_sum(high_a, high_b)
    return _two_sum(high, low + (low_a + low_b))


@jit
def _sums(values, start, stop):
    """Sum of values[start:stop] and sum of their squares, as pairs."""
    total = total_low = squares = squares_low = 0.0
    for i in range(start, stop):
        value = np.float64(values[i])
        total, lost = _two_sum(total, value)
        total_low += lost
        squares, lost = _two_sum(squares, value * value)
        squares_low += lost
    return total, total_low, squares, squares_low


@jit
def _prefix_marks(values, zero):
    """Prefix sums at every `_MARK`-th position, counted outwards from `zero` -> float64[n_marks, 4].

    Row ``zero // _MARK + t`` belongs to position ``zero + t * _MARK``: the sum and the sum of
    squares of the values between `zero` and there, negative to the left of `zero`.
    """
    n_left = zero // _MARK
    n_right = (len(values) - zero) // _MARK
    marks = np.zeros((n_left + 1 + n_right, 4))
    for side, n_blocks in ((-1, n_left), (1, n_right)):
        total = total_low = squares = squares_low = 0.0
        for block in range(1, n_blocks + 1):
            inner, outer = zero + side * (block - 1) * _MARK, zero + side * block * _MARK
            added, added_low, added_squares, added_squares_low = _sums(values, min(inner, outer), max(inner, outer))
            total, total_low = _pair(total, total_low, side * added, side * added_low)
            squares, squares_low = _pair(squares, squares_low, side * added_squares, side * added_squares_low)
            row = marks[n_left + side * block]
            row[0], row[1], row[2], row[3] = total, total_low, squares, squares_low
    return marks


# --- tables of intervals ------------------------------------------------------------------------------


@jit
def _describe(values, zero, marks, position):
    """Position and prefix sums there, in the order of a table's rows."""
    if position >= zero:
        block = (position - zero) // _MARK
        sign, start, stop = 1.0, zero + block * _MARK, position
    else:
        block = -((zero - position) // _MARK)
        sign, start, stop = -1.0, position, zero + block * _MARK
    mark = marks[zero // _MARK + block]
    total, total_low, squares, squares_low = _sums(values, start, stop)
    total, total_low = _pair(mark[0], mark[1], sign * total, sign * total_low)
    squares, squares_low = _pair(mark[2], mark[3], sign * squares, sign * squares_low)
    return np.float64(position), total, total_low, squares, squares_low


@jit
def _table(values, zero, marks, first, last):
    """Everything that costs need to know of the intervals -> float64[2, _N_ROWS, m].

    ``table[_FIRST]`` describes the first position of each interval, ``table[_LAST]`` the last one:
    the position, its prefix sums, and the value next to it outside the interval. A cluster between
    two splits runs from the last position of one interval to the first position of the next.
    """
    table = np.empty((2, _N_ROWS, len(first)))
    for i in range(len(first)):
        numbers = _describe(values, zero, marks, first[i])
        for row in range(_VALUE):
            table[_FIRST, row, i] = numbers[row]
        if last[i] != first[i]:  # most intervals of the last round are single positions
            numbers = _describe(values, zero, marks, last[i])
        for row in range(_VALUE):
            table[_LAST, row, i] = numbers[row]
        table[_FIRST, _VALUE, i] = values[max(first[i] - 1, 0)]
        table[_LAST, _VALUE, i] = values[min(last[i], len(values) - 1)]
    return table


@jit
def _run_starts(values, limit):
    """IntArray at which a value differs from the one before, `limit` of them at most -> int64[m]."""
    starts = np.empty(limit, np.int64)
    n_starts = 0
    for i in range(1, len(values)):
        if values[i] != values[i - 1]:
            starts[n_starts] = i
            n_starts += 1
            if n_starts == limit:
                break
    return starts[:n_starts].copy()


@jit
def _cut(values, zero, marks, first, last, width):
    """Cut intervals into pieces of at most `width` positions, without the ends where no split may lie -> a `_Layer`.

    A split never separates equal values, so the first and last position of a piece are run ends.
    """
    n_pieces = 0
    for i in range(len(first)):
        n_pieces += (last[i] - first[i]) // width + 1
    new_first, new_last = np.empty(n_pieces, np.int64), np.empty(n_pieces, np.int64)
    n_pieces = 0
    for i in range(len(first)):
        for start in range(first[i], last[i] + 1, width):
            low, high = start, min(start + width - 1, last[i])
            while low <= high and values[low - 1] == values[low]:
                low += 1
            while low < high and values[high - 1] == values[high]:
                high -= 1
            if low <= high:
                new_first[n_pieces], new_last[n_pieces] = low, high
                n_pieces += 1
    first, last = new_first[:n_pieces].copy(), new_last[:n_pieces].copy()
    return first, last, _table(values, zero, marks, first, last)


# --- the dynamic programme ----------------------------------------------------------------------------


@jit
def _extend(costs, before, after, choice):
    """Add one cluster: the least cost up to each interval of `after` -> float64[n_after].

    ``result[c] = min costs[p] + cost of the cluster between before[p] and after[c]`` over the p that leave
    room for a split of their own; `choice` receives the p, the smallest one among ties, 0 where
    there is none and the result is infinite. Choices ascend with c, so the choices of two rows
    bound those of the rows between them: rows are visited in the order of a binary search, all the
    middles first.
    """
    n_before, n_after = before.shape[2], after.shape[2]
    result = np.empty(n_after)
    trial = np.empty(n_before)
    # Contiguous rows, named, let LLVM vectorise the loop over p.
    start, start_value = before[_LAST, _POSITION], before[_LAST, _VALUE]
    start_sum, start_sum_low = before[_LAST, _SUM], before[_LAST, _SUM_LOW]
    start_squares, start_squares_low = before[_LAST, _SQUARES], before[_LAST, _SQUARES_LOW]
    step = 1
    while 2 * step <= n_after:
        step *= 2
    while step > 0:
        for c in range(step - 1, n_after, 2 * step):
            low = choice[c - step] if c >= step else 0
            high = choice[c + step] + 1 if c + step < n_after else n_before
            # Two splits need two positions.
            high = min(high, np.searchsorted(before[_FIRST, _POSITION], after[_LAST, _POSITION, c]))
            stop, stop_value = after[_FIRST, _POSITION, c], after[_FIRST, _VALUE, c]
            stop_sum, stop_sum_low = after[_FIRST, _SUM, c], after[_FIRST, _SUM_LOW, c]
            stop_squares, stop_squares_low = after[_FIRST, _SQUARES, c], after[_FIRST, _SQUARES_LOW, c]
            for p in range(low, high):
                n_values = stop - start[p]
                total, total_low = _pair(stop_sum, stop_sum_low, -start_sum[p], -start_sum_low[p])
                squares, squares_low = _pair(stop_squares, stop_squares_low, -start_squares[p], -start_squares_low[p])
                # n_values * squares - total**2, then one division
                scaled, scaled_low = _two_product(n_values, squares)
                scaled_low += n_values * squares_low
                squared, squared_low = _two_product(total, total)
                squared_low += 2.0 * total * total_low
                spread, spread_low = _two_sum(scaled, -squared)
                # np.divide: unlike "/" it has no branch that raises, and the quotient by 0 is not used
                cost = max(np.divide(spread + (spread_low + (scaled_low - squared_low)), n_values), 0.0)
                # An empty cluster (both splits in one interval) and one of equal values cost exactly 0.
                trial[p] = costs[p] + (cost if stop_value > start_value[p] else 0.0)
            best, best_p = np.inf, low
            for p in range(low, high):
                if trial[p] < best * _TIE:
                    best, best_p = trial[p], p
            result[c], choice[c] = best, best_p
        step //= 2
    return result


class _Search:
    """The sorted values with their prefix sums, and the dynamic programme over them."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.values = values
        self.zero = int(np.searchsorted(values, np.float32(0)))
        self.marks = _prefix_marks(values, self.zero)
        ends = np.array([0, len(values)])
        table = _table(values, self.zero, self.marks, ends, ends)
        self.start, self.end = table[:, :, :1].copy(), table[:, :, 1:].copy()

    def cut(self, layers: list[Intervals], width: int) -> list[_Layer]:
        """Cut the intervals of every layer to at most `width` positions."""
        return [_Layer(*_cut(self.values, self.zero, self.marks, *intervals, width)) for intervals in layers]

    def forward(self, layers: list[_Layer]) -> tuple[float, list[int], list[FloatArray]]:
        """Run the programme: least cost, interval of each split, least cost up to each interval of each layer."""
        before, costs = self.start, np.zeros(1)
        totals, choices = [], []
        for _, _, after in layers:
            choices.append(np.empty(after.shape[2], np.int32))
            costs = _extend(costs, before, after, choices[-1])
            totals.append(costs)
            before = after
        chosen = np.empty(1, np.int32)
        (cost,) = _extend(costs, before, self.end, chosen)
        path = [int(chosen[0])]
        for choice in choices[:0:-1]:
            path.append(int(choice[path[-1]]))
        return float(cost), path[::-1], totals

    def backward(self, layers: list[_Layer]) -> list[FloatArray]:
        """Least cost from each interval of each layer to the end: `forward` on the mirrored values."""
        before, costs = _mirrored(self.end), np.zeros(1)
        totals = []
        for layer in reversed(layers):
            after = _mirrored(layer.table)
            costs = _extend(costs, before, after, np.empty(after.shape[2], np.int32))
            totals.append(costs[::-1])
            before = after
        return totals[::-1]

    def dive(self, layers: list[_Layer], path: list[int], width: int) -> float:
        """Cost of one good clustering: follow the best path alone down to single positions."""
        while True:
            best = [(first[i : i + 1], last[i : i + 1]) for (first, last, _), i in zip(layers, path, strict=True)]
            width = max(width // _FAN_OUT, 1)
            layers = self.cut(best, width)
            cost, path, _ = self.forward(layers)
            if width == 1:
                return cost


def _mirrored(table: FloatArray) -> FloatArray:
    """Return the table of the negated, reversed values."""
    return np.ascontiguousarray(-table[::-1, :, ::-1])


def kmeans_1d(values: NDArray[np.float32], n_clusters: int) -> IntArray:
    """Return the splits of the optimal clustering; see `ccx.kernels.kmeans.kmeans_1d`."""
    n = len(values)
    starts: IntArray = _run_starts(values, min(n_clusters, n))
    if len(starts) < n_clusters:  # no more distinct values than clusters
        return starts
    if n_clusters == 1:
        return np.empty(0, np.int64)
    width = 1
    while n > width * _COARSEST:
        width *= _FAN_OUT
    # Finer towards both ends: in heavy tails the optimum lies among the outermost values.
    powers = 2 ** np.arange((n - 1).bit_length())
    first = np.unique(np.concatenate([np.arange(1, n, width), powers, n - powers]))
    last = np.append(first[1:] - 1, n - 1)
    search = _Search(values)
    layers = search.cut([(first, last)], width) * (n_clusters - 1)
    known = np.inf
    while True:
        _, path, to_here = search.forward(layers)
        if width == 1:
            return np.array([first[i] for (first, _, _), i in zip(layers, path, strict=True)], np.int64)
        known = min(known, search.dive(layers, path, width))
        from_here = search.backward(layers)
        width //= _FAN_OUT
        kept = [a + b <= known * _MARGIN for a, b in zip(to_here, from_here, strict=True)]
        left = [(first[keep], last[keep]) for (first, last, _), keep in zip(layers, kept, strict=True)]
        layers = search.cut(left, width)
