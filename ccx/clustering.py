"""From the activations of one unit to its ranges: open intervals of activation, in ascending order.

A range ``(lower, upper)`` holds the activations with ``lower < a < upper``. Both ends are exclusive, as in the
published system (Clustered Compositional Explanations): the smallest and the largest activation of a cluster
lie in no range, and a cluster of one distinct value gives a range that holds nothing.
"""

from __future__ import annotations

from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccx import memory
from ccx.checks import UNBOUNDED, choice, integer
from ccx.errors import DTypeError, InputError, ShapeError, require_library
from ccx.kernels import cpu
from ccx.kernels.conversion import as_array, as_floats, describe, require_host
from ccx.kernels.ieee import ieee
from ccx.options import Method, check_quantile

__all__ = ["Method", "check_ranges", "optimal_ranges", "sklearn_ranges", "top_quantile", "unit_ranges"]

Activations: TypeAlias = NDArray[np.float32]
Ranges: TypeAlias = NDArray[np.float64]


@ieee
def unit_ranges(
    values: Activations, *, clusters: int = 5, quantile: float = 0.005, method: Method = "optimal"
) -> Ranges:
    """Return the ranges of one unit: ``float32[...] -> float64[K, 2]``.

    Parameters
    ----------
    values
        All activations of the unit, at their own resolution: any shape and memory layout, finite.
    clusters
        1 takes the activations above their top `quantile`; a larger number, as many k-means clusters.
    quantile
        Share of the activations above the lower end, strictly between 0 and 1; unused when `clusters` is
        not 1.
    method
        ``"optimal"``: globally optimal k-means. ``"sklearn"``: scikit-learn's k-means as the published system
        calls it, a local optimum. Unused when `clusters` is 1.

    Returns
    -------
    float64[K, 2]
        Ascending. K is `clusters`, or the number of distinct values to cluster where that is less: 0 for a unit
        that never fires.

    Raises
    ------
    DTypeError, InputError
        When an argument is not as described; NaN and infinities among `values` are refused.
    MissingExtraError
        When ``method="sklearn"`` and scikit-learn is not installed.

    """
    choice("method", method, get_args(Method), "leave it out for the optimum")
    n_clusters = integer("clusters", clusters, 1, UNBOUNDED, "1 stands for the top quantile")
    if n_clusters == 1:
        return np.array([top_quantile(values, quantile)])
    return ranges_of(_flat(values), n_clusters, quantile, method)


def ranges_of(values: Activations, clusters: int, quantile: float, method: Method) -> Ranges:
    """Do what `unit_ranges` does, with arguments that were checked: finite float32[n], n >= 1 -> float64[K, 2]."""
    if clusters == 1:
        return np.array([_top_quantile(values, quantile)])
    return _optimal_ranges(values, clusters) if method == "optimal" else _sklearn_ranges(values, clusters)


@ieee
def top_quantile(values: Activations, quantile: float = 0.005) -> tuple[float, float]:
    """Return the range of the largest activations, from their (1 - `quantile`) quantile to infinity.

    This is Network Dissection's threshold (Bau et al., CVPR 2017), exact where theirs is a sketch:
    ``numpy.quantile(values.astype(float64), 1 - quantile, method="linear")``.

    Raises
    ------
    DTypeError, InputError
        When there is no activation, when one is not finite, or `quantile` is not between 0 and 1.

    """
    flat = _flat(values)
    share = check_quantile("quantile", quantile)
    if not len(flat):
        raise InputError(
            argument="values", wanted="at least one activation", got="none", remedy="give at least one sample"
        )
    return _top_quantile(flat, share)


def _top_quantile(values: Activations, quantile: float) -> tuple[float, float]:
    position = (len(values) - 1) * (1 - quantile)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    # Selecting in float32 is several times faster than in float64; the interpolation between the two is left to NumPy.
    neighbours = np.partition(values, [below, above])[[below, above]].astype(np.float64)
    return float(np.quantile(neighbours, position - below, method="linear")), np.inf


@ieee
def optimal_ranges(values: Activations, n_clusters: int) -> Ranges:
    """Return (smallest, largest) value of each cluster of the optimal k-means: ``float32[...] -> float64[K, 2]``.

    Where no activation is negative, the zeros are dropped first: there the unit does not fire. See
    `unit_ranges` for K and for errors.
    """
    return _optimal_ranges(_flat(values), _count(n_clusters))


def _count(n_clusters: int) -> int:
    return integer("n_clusters", n_clusters, 1, UNBOUNDED, "ask for a cluster")


def _optimal_ranges(values: Activations, n_clusters: int) -> Ranges:
    ordered = np.sort(_firing(values))
    if not len(ordered):
        return np.empty((0, 2))
    splits = cpu.kmeans.kmeans_1d(ordered, n_clusters)
    smallest, largest = ordered[np.append(0, splits)], ordered[np.append(splits, len(ordered)) - 1]
    return np.column_stack([smallest, largest]).astype(np.float64)


@ieee
def sklearn_ranges(values: Activations, n_clusters: int) -> Ranges:
    """Return (smallest, largest) value of each cluster of scikit-learn's k-means: ``float32[...] -> float64[K, 2]``.

    ``KMeans(n_clusters, random_state=0)``, zeros dropped as in `optimal_ranges`: the published behaviour. Where
    there are no more distinct values than clusters, on which that fails, each value is a cluster.
    """
    return _sklearn_ranges(_flat(values), _count(n_clusters))


def _sklearn_ranges(values: Activations, n_clusters: int) -> Ranges:
    require_library("scikit-learn", "sklearn", "clustering by scikit-learn")
    from sklearn.cluster import KMeans  # noqa: PLC0415 (an optional library)

    firing = _firing(values)
    distinct = np.unique(firing)
    if len(distinct) <= n_clusters:
        return np.column_stack([distinct, distinct]).astype(np.float64)
    labels = KMeans(n_clusters, random_state=0).fit(firing[:, np.newaxis]).labels_
    clusters = [firing[labels == label] for label in np.unique(labels)]
    return np.array(sorted((cluster.min(), cluster.max()) for cluster in clusters), np.float64)


@ieee
def check_ranges(ranges: ArrayLike) -> Ranges:
    """Return ranges that a user gave as ``float64[K, 2]``, in the order given; they may overlap.

    Raises
    ------
    DTypeError, ShapeError, InputError
        When these are not K >= 1 pairs of numbers, infinite ones included, with lower < upper.

    """
    pairs = as_array(ranges, "ranges")
    if pairs.dtype.kind not in "iuf":
        remedy = "give numbers; -inf or inf leaves an end open"
        raise DTypeError(argument="ranges", wanted="numbers[K, 2]", got=describe(pairs), remedy=remedy)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        remedy = "write one range as [(lower, upper)]"
        raise ShapeError(argument="ranges", wanted="numbers[K, 2], K >= 1", got=describe(pairs), remedy=remedy)
    checked: Ranges = pairs.astype(np.float64)
    wrong = np.flatnonzero(~(checked[:, 0] < checked[:, 1]))  # NaN is wrong, too
    if len(wrong):
        k, (lower, upper) = wrong[0], checked[wrong[0]]
        remedy = "an open interval needs room between its ends"
        raise InputError(argument=f"ranges[{k}]", wanted="lower < upper", got=f"({lower}, {upper})", remedy=remedy)
    return checked


def _flat(values: Any) -> Activations:
    """Return activations as ``float32[n]``; refuse what is no floating point, NaN and infinities."""
    array = as_floats(values, "values")
    require_host(array, "values", "activations")
    memory.require_bytes("values", 5 * array.size, "give fewer units at a time")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite
        flat: Activations = array.reshape(-1).astype(np.float32, copy=False)
    n_wrong = len(flat) - np.count_nonzero(np.isfinite(flat))
    if n_wrong:
        got = f"{n_wrong} NaN or infinite of {len(flat)}"
        raise InputError(
            argument="values", wanted="finite activations", got=got, remedy="mend the model or drop those samples"
        )
    return flat


def _firing(values: Activations) -> Activations:
    """Return the activations without their zeros where none is negative."""
    if len(values) and values.min() >= 0:
        return values[values > 0]
    return values
