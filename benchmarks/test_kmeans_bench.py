"""Clustering of the 1.08 million activations of a unit, by kind of data and by stage; PyPI's kmeans1d beside it.

``python -m pytest benchmarks/test_kmeans_bench.py --benchmark-enable``. The kernel is checked first: with pruning off
it gives the same splits. ``extra_info`` gives bytes read, GB/s, their share of the plain read bandwidth, and values
a second.
"""

from __future__ import annotations

from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks._measure import measure
from ccx.clustering import unit_ranges
from ccx.kernels import kmeans_1d
from ccx.kernels.cpu import kmeans as cpu

N_VALUES, N_CLUSTERS = 1_080_000, 5
KINDS = ["relu", "signed", "heavy tail", "clumps", "integers"]


@cache
def sorted_values(kind: str) -> NDArray[np.float32]:
    """Draw sorted values: float32[N_VALUES]."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=N_VALUES)
    drawn = {
        "relu": lambda: np.abs(normal),  # its zeros dropped
        "signed": lambda: normal,
        "heavy tail": lambda: rng.lognormal(0, 3, N_VALUES),
        "clumps": lambda: rng.integers(0, 3, N_VALUES) + 1e-3 * normal,
        "integers": lambda: rng.integers(0, 256, N_VALUES),
    }
    return np.sort(drawn[kind]().astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_kmeans_1d(benchmark: Any, kind: str) -> None:
    """The whole kernel on sorted values."""
    values = sorted_values(kind)
    with patch.object(cpu, "_MARGIN", np.inf):
        wanted = kmeans_1d(values, N_CLUSTERS)
    np.testing.assert_array_equal(kmeans_1d(values, N_CLUSTERS), wanted)
    measure(benchmark, lambda: kmeans_1d(values, N_CLUSTERS), n_bytes=values.nbytes, n_items=values.size, unit="values")


def test_nothing_pruned(benchmark: Any) -> None:
    """The dynamic programme over all positions: what data that no bound can prune would cost."""
    values = sorted_values("relu")[::10]
    with patch.object(cpu, "_MARGIN", np.inf):
        measure(
            benchmark, lambda: kmeans_1d(values, N_CLUSTERS), n_bytes=values.nbytes, n_items=values.size, unit="values"
        )


def test_sort(benchmark: Any) -> None:
    """Stage: sort."""
    values = np.random.default_rng(1).permutation(sorted_values("relu"))
    measure(benchmark, lambda: np.sort(values), n_bytes=2 * values.nbytes, n_items=values.size, unit="values")


def test_prefix_sums(benchmark: Any) -> None:
    """Stage: the one pass over all values, in sums of about 106 bits."""
    values = sorted_values("relu")
    marks = cpu._prefix_marks(values, 0)
    np.testing.assert_allclose(
        marks[:, 0], np.append(0, np.cumsum(values, dtype=np.longdouble)[cpu._MARK - 1 :: cpu._MARK])
    )
    measure(benchmark, lambda: cpu._prefix_marks(values, 0), n_bytes=values.nbytes, n_items=values.size, unit="values")


@pytest.mark.parametrize("clusters", [1, N_CLUSTERS])
def test_unit_ranges(benchmark: Any, clusters: int) -> None:
    """All that the pipeline does for a unit, here of 2.16 million activations of which half are zeros."""
    values = np.maximum(np.random.default_rng(2).normal(size=2 * N_VALUES), 0).astype(np.float32)
    assert len(unit_ranges(values, clusters=clusters)) == clusters
    measure(
        benchmark,
        lambda: unit_ranges(values, clusters=clusters),
        n_bytes=values.nbytes,
        n_items=values.size,
        unit="values",
    )


def test_kmeans1d(benchmark: Any) -> None:
    """PyPI's kmeans1d on a tenth of the values, sorted already."""
    kmeans1d = pytest.importorskip("kmeans1d")
    values = sorted_values("relu")[::10].astype(np.float64)
    clusters = kmeans1d.cluster(values, N_CLUSTERS).clusters
    np.testing.assert_array_equal(np.flatnonzero(np.diff(clusters)) + 1, kmeans_1d(np.float32(values), N_CLUSTERS))
    call = lambda: kmeans1d.cluster(values, N_CLUSTERS)  # noqa: E731
    measure(benchmark, call, n_bytes=values.nbytes, n_items=values.size, unit="values")
