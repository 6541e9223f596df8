"""The oracle of `ccx.kernels.kmeans`: the textbook dynamic programme in exact rational arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray


def cluster_cost(sorted_values: NDArray[np.float32]) -> Callable[[int, int], Fraction]:
    """Return the function that gives the sum of squared distances of values[start:stop] to their mean."""
    exact = [Fraction(float(value)) for value in sorted_values]
    sums = list(accumulate(exact, initial=Fraction(0)))
    squares = list(accumulate((value**2 for value in exact), initial=Fraction(0)))
    return lambda start, stop: squares[stop] - squares[start] - (sums[stop] - sums[start]) ** 2 / (stop - start)


def clustering_cost(sorted_values: NDArray[np.float32], splits: NDArray[np.int64]) -> Fraction:
    """Sum of the costs of the clusters between the splits."""
    cost = cluster_cost(sorted_values)
    return sum((cost(start, stop) for start, stop in pairwise([0, *splits.tolist(), len(sorted_values)])), Fraction(0))


def kmeans_1d(sorted_values: NDArray[np.float32], n_clusters: int) -> NDArray[np.int64]:
    """Return the splits of the optimal clustering, the smallest ones among ties, in O(k n**2)."""
    n = len(sorted_values)
    if n == 0:
        return np.empty(0, np.int64)
    cost = cluster_cost(sorted_values)
    stops = [i for i in range(1, n) if sorted_values[i - 1] != sorted_values[i]] + [n]
    # best[stop] = (least cost of values[:stop] in so many clusters, its splits)
    best: dict[int, tuple[Fraction, list[int]]] = {stop: (cost(0, stop), []) for stop in stops}
    for _ in range(min(n_clusters, len(stops)) - 1):
        best = {
            stop: min(
                (total + cost(start, stop), [*splits, start]) for start, (total, splits) in best.items() if start < stop
            )
            for stop in list(best)[1:]
        }
    return np.array(best[n][1], np.int64)
