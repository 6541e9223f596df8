"""Optimal k-means: exact against rational arithmetic, and equal whether or not anything is pruned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ccx.errors import DTypeError, InputError, ShapeError
from ccx.kernels.cpu import kmeans as cpu
from ccx.kernels.kmeans import kmeans_1d
from tests.reference import kmeans as reference

Values = NDArray[np.float32]

# Every cost is known to 1e-9 whatever the data, and to nearly all digits of a float64 where they are no extreme.
ANY_DATA = Fraction(1, 10**9)
TAME_DATA = Fraction(1, 10**13)


def sorted_float32(values: object) -> Values:
    return np.sort(np.asarray(values, np.float64).astype(np.float32))


N_VALUES = st.sampled_from([1, 2, 3, 5, 16, 31, 32, 33, 64, 65])


def lists_of(elements: st.SearchStrategy[float]) -> st.SearchStrategy[Values]:
    return N_VALUES.flatmap(lambda n: st.lists(elements, min_size=n, max_size=n)).map(sorted_float32)


integers = lists_of(st.integers(-9, 9).map(float))  # many duplicates, many exact ties
tame = lists_of(st.floats(-8, 8, width=32, allow_subnormal=False))
offset = lists_of(st.integers(0, 30).map(lambda i: 1e6 + i / 16))  # neighbours in float32: nothing left of v**2
anything = lists_of(st.floats(width=32, allow_nan=False, allow_infinity=False))
# Scales far apart, so that the costs of different clusters are, too.
scales = lists_of(
    st.tuples(st.sampled_from([-1.0, 1.0]), st.integers(-140, 120), st.integers(0, 3)).map(
        lambda t: t[0] * 2.0 ** t[1] * (1 + t[2] * 2.0**-23)
    )
)
clusters = st.integers(1, 7)


@contextmanager
def rounds(coarsest: int, fan_out: int) -> Iterator[None]:
    """Make small inputs pass through several rounds of pruning."""
    with patch.object(cpu, "_COARSEST", coarsest), patch.object(cpu, "_FAN_OUT", fan_out):
        yield


ROUNDS = pytest.mark.parametrize(("coarsest", "fan_out"), [(1024, 8), (1, 2), (4, 3)])


def check_partition(values: Values, splits: NDArray[np.int64], n_clusters: int) -> None:
    assert splits.dtype == np.int64
    assert len(splits) == max(min(n_clusters, len(np.unique(values))) - 1, 0)
    assert (values[splits - 1] < values[splits]).all()  # strictly inside, and between different values
    assert (np.diff(splits) > 0).all()


@ROUNDS
@given(values=integers, n_clusters=clusters)
@example(values=sorted_float32([-1, 0, 1]), n_clusters=2)
@example(values=sorted_float32([0.0, -0.0, 1]), n_clusters=2)
@example(values=sorted_float32([0, 2, 2, 3, 4, 5, 5, 7]), n_clusters=3)  # two costs that float64 rounds differently
def test_equals_the_oracle_with_its_ties(coarsest: int, fan_out: int, values: Values, n_clusters: int) -> None:
    with rounds(coarsest, fan_out):
        splits = kmeans_1d(values, n_clusters)
    np.testing.assert_array_equal(splits, reference.kmeans_1d(values, n_clusters), strict=True)


@ROUNDS
@pytest.mark.parametrize(
    ("family", "tolerance"), [("tame", TAME_DATA), ("offset", TAME_DATA), ("anything", ANY_DATA), ("scales", ANY_DATA)]
)
@settings(max_examples=settings.default.max_examples // 4)  # of each family and way of rounds
@given(data=st.data())
def test_costs_no_more_than_the_oracle(
    coarsest: int, fan_out: int, family: str, tolerance: Fraction, data: st.DataObject
) -> None:
    values, n_clusters = data.draw(globals()[family]), data.draw(clusters)
    with rounds(coarsest, fan_out):
        splits = kmeans_1d(values, n_clusters)
    check_partition(values, splits, n_clusters)
    cost = reference.clustering_cost(values, splits)
    least = reference.clustering_cost(values, reference.kmeans_1d(values, n_clusters))
    assert least <= cost <= least * (1 + tolerance)


@given(values=st.one_of(integers, tame, scales), n_clusters=clusters)
def test_the_oracle_is_the_best_of_all_clusterings(values: Values, n_clusters: int) -> None:
    values = values[:9]
    candidates: list[list[int]] = [[]]
    for _ in range(min(n_clusters, len(np.unique(values))) - 1):
        candidates = [[*c, p] for c in candidates for p in range(max(c, default=0) + 1, len(values))]
    least = min(reference.clustering_cost(values, np.array(c, np.int64)) for c in candidates)
    assert reference.clustering_cost(values, reference.kmeans_1d(values, n_clusters)) == least


def large(name: str, n: int = 40_000) -> Values:
    rng = np.random.default_rng(7)
    groups = rng.integers(0, 9, n)
    made = {
        "uniform": lambda: rng.random(n),
        "relu": lambda: np.maximum(rng.normal(size=n), 0),
        "cauchy": lambda: rng.standard_cauchy(n),
        "pareto": lambda: rng.pareto(1, n),
        "lognormal": lambda: rng.lognormal(0, 3, n),
        "integers": lambda: rng.integers(0, 300, n),
        "clumps": lambda: groups + 1e-4 * rng.normal(size=n),
        "offset": lambda: 1e6 + rng.normal(size=n),
        "outlier": lambda: np.append(rng.normal(size=n - 1), 1e30),
        "magnitudes": lambda: rng.choice([-1, 1], n) * 2.0 ** rng.uniform(-100, 100, n),
    }
    return sorted_float32(made[name]())


LARGE = ["uniform", "relu", "cauchy", "pareto", "lognormal", "integers", "clumps", "offset", "outlier", "magnitudes"]


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("n_clusters", [2, 5, 12])
def test_pruning_changes_nothing(name: str, n_clusters: int) -> None:
    values = large(name)
    pruned = kmeans_1d(values, n_clusters)
    check_partition(values, pruned, n_clusters)
    with patch.object(cpu, "_MARGIN", np.inf):
        np.testing.assert_array_equal(pruned, kmeans_1d(values, n_clusters))


@pytest.mark.parametrize("name", LARGE)
def test_a_split_lies_halfway_between_the_means(name: str) -> None:
    """An optimum is a fixed point of Lloyd's iteration: checked where no oracle can follow."""
    values = large(name)
    splits = kmeans_1d(values, 5).tolist()
    ends = [0, *splits, len(values)]
    exact = [Fraction(float(value)) for value in values]
    means = [sum(exact[a:b], Fraction(0)) / (b - a) for a, b in pairwise(ends)]
    for split, lower, upper in zip(splits, means[:-1], means[1:], strict=True):
        assert exact[split - 1] <= (lower + upper) / 2 <= exact[split]


@pytest.mark.needs("kmeans1d")
@pytest.mark.parametrize("name", [name for name in LARGE if name not in {"offset", "outlier", "magnitudes"}])
@pytest.mark.parametrize("n_clusters", [2, 5, 12])
def test_equals_kmeans1d(name: str, n_clusters: int) -> None:
    """The three left out are beyond its plain float64 sums: it returns clusters that overlap."""
    import kmeans1d

    values = large(name)
    theirs = np.flatnonzero(np.diff(kmeans1d.cluster(values.astype(np.float64), n_clusters).clusters)) + 1
    ours = kmeans_1d(values, n_clusters)
    least = reference.clustering_cost(values, theirs)
    assert abs(reference.clustering_cost(values, ours) - least) <= least * Fraction(1, 10**12)


def test_neighbouring_float32_far_from_zero() -> None:
    """Sums of squares of 2**56 and costs of 100: float64 sums would lose the difference."""
    rng = np.random.default_rng(11)
    for _ in range(20):
        values = sorted_float32(1.5e7 + 2 * rng.normal(size=300))
        np.testing.assert_array_equal(kmeans_1d(values, 5), reference.kmeans_1d(values, 5))


@pytest.mark.parametrize(
    ("n_equal", "large_value", "medium_value"),
    [(2626, 0.63489336, 9.837933e-10), (2650, 0.8981621, 2.16516e-08), (2298, 0.9645521, 2.6710136e-09)],
)
def test_clusters_of_equal_values_cost_nothing(n_equal: int, large_value: float, medium_value: float) -> None:
    """Their sums of squares are inexact here, by 1e10 times the cost of the small values that are to be halved."""
    small = 1e-28 * np.arange(1, 101)
    values = sorted_float32(-np.concatenate([small, [medium_value] * n_equal, [large_value] * n_equal]))
    np.testing.assert_array_equal(kmeans_1d(values, 4), [n_equal, 2 * n_equal, 2 * n_equal + 50])


def test_shifting_the_values_changes_nothing() -> None:
    values = sorted_float32(np.random.default_rng(3).integers(0, 4096, 5000) / 1024)
    shifted = sorted_float32(values.astype(np.float64) + 2.0**13)
    np.testing.assert_array_equal(kmeans_1d(values, 5), kmeans_1d(shifted, 5))


@pytest.mark.parametrize(
    ("values", "n_clusters", "splits"),
    [
        ([], 3, []),
        ([4], 3, []),
        ([4, 4, 4], 3, []),
        ([1, 2], 1, []),
        ([1, 2], 2, [1]),
        ([1, 1, 2, 2], 9, [2]),
        ([1, 2, 3], 10**12, [1, 2]),
        ([0, 0, 0, 1], 2, [3]),
    ],
)
def test_small(values: list[float], n_clusters: int, splits: list[int]) -> None:
    np.testing.assert_array_equal(
        kmeans_1d(sorted_float32(values), n_clusters), np.array(splits, np.int64), strict=True
    )
    np.testing.assert_array_equal(
        reference.kmeans_1d(sorted_float32(values), n_clusters), np.array(splits, np.int64), strict=True
    )


def test_any_memory_layout() -> None:
    values = sorted_float32(np.random.default_rng(0).random(99))
    read_only = values.copy()
    read_only.flags.writeable = False
    wide = np.zeros((99, 3), np.float32)
    wide[:, 1] = values
    want = kmeans_1d(values, 5)
    for same in (read_only, wide[:, 1], values.astype(">f4")):
        np.testing.assert_array_equal(kmeans_1d(same, 5), want)


@pytest.mark.parametrize(
    ("values", "n_clusters", "error", "message"),
    [
        (np.zeros(3, int), 2, DTypeError, r"sorted_values: expected floating point, got int64\[3\]"),
        (np.zeros((3, 1), np.float32), 2, ShapeError, r"got float32\[3, 1\]"),
        (np.array([2, 1], np.float32), 2, InputError, "ascending"),
        (np.array([0, np.nan, 1], np.float32), 2, InputError, "NaN"),
        (np.array([np.nan], np.float32), 2, InputError, "NaN"),
        (np.array([0, np.inf], np.float32), 2, InputError, "infinite"),
        (np.array([-np.inf, 0], np.float32), 2, InputError, "infinite"),
        (np.zeros(3, np.float32), 0, InputError, "n_clusters: expected an integer >= 1, got 0"),
        (np.zeros(3, np.float32), 2.0, InputError, "n_clusters: expected an integer >= 1, got 2.0"),
    ],
)
def test_bad_input(values: Values, n_clusters: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kmeans_1d(values, n_clusters)
