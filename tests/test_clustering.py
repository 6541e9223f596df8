"""From activations to ranges: definitions, the published system's outputs, bad input."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from ccx.clustering import check_ranges, optimal_ranges, sklearn_ranges, top_quantile, unit_ranges
from ccx.errors import CCXError, DTypeError, InputError, MissingExtraError, ShapeError
from tests.reference.kmeans import clustering_cost, kmeans_1d

Values = NDArray[np.float32]
PARITY = Path(__file__).parent / "support" / "parity"

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
few = st.integers(-3, 6).map(float)
activations = npst.arrays(np.float32, st.integers(1, 70), elements=st.one_of(finite, few))
rectified = npst.arrays(np.float32, st.integers(1, 40), elements=st.integers(0, 12).map(float))


def parity_units() -> list[tuple[str, int]]:
    cases = ("h1_tiny", "h3_odd", "h5_ties")
    return [(case, unit) for case in cases for unit in range(len(np.load(PARITY / f"{case}.npz")["in.act"]))]


def parity(case: str, unit: int, clusters: int) -> tuple[Values, NDArray[np.float64], str]:
    with np.load(PARITY / f"{case}.npz") as data:
        key = f"u{unit}.k{clusters}"
        return data["in.act"][unit], data[f"{key}.ranges"], str(data[f"{key}.error"])


def cost(values: Values, ranges: NDArray[np.float64]) -> object:
    """Exact k-means cost of the clusters that the ranges span."""
    flat = np.sort(values, axis=None)
    if len(flat) and flat[0] >= 0:
        flat = flat[flat > 0]
    return clustering_cost(flat, np.searchsorted(flat, ranges[1:, 0].astype(np.float32)))


# --- the top quantile ---------------------------------------------------------------------------------


@given(values=activations, quantile=st.one_of(st.sampled_from([0.005, 0.5, 0.25]), st.floats(0.001, 0.999)))
def test_top_quantile_is_numpys(values: Values, quantile: float) -> None:
    lower, upper = top_quantile(values, quantile)
    assert lower == np.quantile(values.astype(np.float64), 1 - quantile, method="linear")
    assert upper == np.inf


def test_top_quantile_of_many_values() -> None:
    values = np.random.default_rng(1).normal(size=(100, 7, 7)).astype(np.float32)
    (lower, upper), *rest = unit_ranges(values, clusters=1)
    assert not rest
    assert (lower, upper) == (np.quantile(values.astype(np.float64), 0.995), np.inf)
    assert 0.004 < (values > lower).mean() < 0.006


@pytest.mark.parametrize(("case", "unit"), parity_units())
def test_top_quantile_is_near_the_published_sketch(case: str, unit: int) -> None:
    """The published system draws a random sketch: its threshold lies within a few ranks of the quantile."""
    values, ((want, _),), _ = parity(case, unit, 1)
    lower, _ = top_quantile(values)
    n_between = np.count_nonzero((values > min(lower, want)) & (values < max(lower, want)))
    assert n_between <= 0.002 * values.size


# --- k-means ranges -----------------------------------------------------------------------------------


@given(values=st.one_of(activations, rectified), clusters=st.integers(2, 6))
def test_ranges_span_the_clusters(values: Values, clusters: int) -> None:
    ranges = unit_ranges(values, clusters=clusters)
    firing = values[values > 0] if (values >= 0).all() else values
    distinct = np.unique(firing)
    assert ranges.shape == (min(clusters, len(distinct)), 2)
    assert ranges.dtype == np.float64
    assert (ranges[:, 0] <= ranges[:, 1]).all()
    assert (ranges[:-1, 1] < ranges[1:, 0]).all()
    inside = (firing[:, None] >= ranges[:, 0]) & (firing[:, None] <= ranges[:, 1])
    assert (inside.sum(axis=1) == 1).all()
    assert np.isin(ranges, distinct).all()


@given(values=rectified, clusters=st.integers(2, 5))
def test_ranges_are_those_of_the_oracle(values: Values, clusters: int) -> None:
    firing = np.sort(values[values > 0])
    pieces = np.split(firing, kmeans_1d(firing, clusters)) if len(firing) else []
    want = np.array([(piece[0], piece[-1]) for piece in pieces], np.float64).reshape(-1, 2)
    np.testing.assert_array_equal(optimal_ranges(values, clusters), want, strict=True)


def test_zeros_are_dropped_only_where_nothing_is_negative() -> None:
    zeros = [0.0] * 100
    np.testing.assert_array_equal(optimal_ranges(np.float32([*zeros, 1, 2]), 2), [(1, 1), (2, 2)])
    np.testing.assert_array_equal(optimal_ranges(np.float32([*zeros, 5, -1]), 2), [(-1, 0), (5, 5)])
    np.testing.assert_array_equal(optimal_ranges(np.float32([*zeros, 1, 2, -0.0]), 2), [(1, 1), (2, 2)])


METHODS = pytest.mark.parametrize("method", ["optimal", pytest.param("sklearn", marks=pytest.mark.needs("sklearn"))])


@METHODS
@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([], []),
        ([0, 0, 0], []),  # never fires
        ([3, 3, 3], [(3, 3)]),  # constant
        ([0, 2, 0, 1, 2], [(1, 1), (2, 2)]),
        ([-1, 0], [(-1, -1), (0, 0)]),
        ([1, 2, 3, 4, 5], [(i, i) for i in range(1, 6)]),
    ],
)
def test_no_more_ranges_than_distinct_values(method: str, values: list[float], want: list[tuple[float, float]]) -> None:
    ranges = unit_ranges(np.array(values, np.float32), method=method)  # type: ignore[arg-type]
    np.testing.assert_array_equal(ranges, np.array(want, np.float64).reshape(-1, 2), strict=True)


@pytest.mark.needs("sklearn")
@pytest.mark.parametrize(("case", "unit"), parity_units())
def test_sklearn_gives_the_published_ranges(case: str, unit: int) -> None:
    values, want, error = parity(case, unit, 5)
    ranges = unit_ranges(values, method="sklearn")
    if error:  # fewer distinct values than clusters
        assert len(ranges) == len(np.unique(values[values != 0])) < 5
    else:
        np.testing.assert_array_equal(ranges, want, strict=True)


@pytest.mark.parametrize(("case", "unit"), parity_units())
def test_the_optimum_is_no_worse_than_the_published_ranges(case: str, unit: int) -> None:
    values, published, error = parity(case, unit, 5)
    ranges = unit_ranges(values)
    if not error:
        assert cost(values, ranges) <= cost(values, published)  # type: ignore[operator]


@METHODS
def test_any_shape_and_layout(method: str) -> None:
    values = np.random.default_rng(5).normal(size=(6, 4, 3, 3)).astype(np.float32)
    unit = values[:, 2]  # a strided view of [N, U, h, w]
    want = unit_ranges(np.ascontiguousarray(unit).ravel(), method=method)  # type: ignore[arg-type]
    for same in (unit, np.asfortranarray(unit), unit.astype(">f4")):
        np.testing.assert_array_equal(unit_ranges(same, method=method), want)  # type: ignore[arg-type]


def test_the_order_of_the_activations_is_of_no_matter() -> None:
    values = np.random.default_rng(6).normal(size=200).astype(np.float32)
    np.testing.assert_array_equal(unit_ranges(values[::-1]), unit_ranges(values))


def test_activations_are_left_as_they_were() -> None:
    values = np.float32([3, 1, 2, 0, 5, 4])
    before = values.copy()
    unit_ranges(values)
    unit_ranges(values, clusters=1)
    np.testing.assert_array_equal(values, before)


def test_sklearn_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r'pip install "ccx\[sklearn\]"'):
        sklearn_ranges(np.float32([1, 2, 3]), 2)


# --- bad input ----------------------------------------------------------------------------------------

GOOD = np.float32([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        (GOOD.astype(np.int64), {}, DTypeError, r"values: expected floating point, got int64\[4\]"),
        ("text", {}, DTypeError, "values"),
        (np.float32([0, np.nan, np.inf]), {}, InputError, "2 NaN or infinite of 3"),
        (np.float32([0, np.nan, np.inf]), {"clusters": 1}, InputError, "2 NaN or infinite of 3"),
        (np.float32([0, -np.inf]), {}, InputError, "1 NaN or infinite of 2"),
        (GOOD[:0], {"clusters": 1}, InputError, "at least one activation"),
        (GOOD, {"clusters": 0}, InputError, "clusters: expected an integer >= 1, got 0"),
        (GOOD, {"clusters": 2.5}, InputError, "clusters: expected an integer >= 1, got 2.5"),
        (GOOD, {"clusters": 1, "quantile": 0}, InputError, "quantile"),
        (GOOD, {"clusters": 1, "quantile": 1}, InputError, "quantile"),
        (GOOD, {"clusters": 1, "quantile": np.nan}, InputError, "quantile"),
        (GOOD, {"method": "lloyd"}, InputError, "method: expected 'optimal' or 'sklearn', got 'lloyd'"),
    ],
)
def test_bad_input(values: Values, options: dict[str, object], error: type[CCXError], message: str) -> None:
    with pytest.raises(error, match=message):
        unit_ranges(values, **options)  # type: ignore[arg-type]


def test_explicit_ranges() -> None:
    ranges = check_ranges([(5, np.inf), (-np.inf, 0.5), (1, 2)])
    np.testing.assert_array_equal(ranges, np.array([(5, np.inf), (-np.inf, 0.5), (1, 2)]), strict=True)
    given = np.array([[0, 1]], np.float64)
    assert not np.shares_memory(check_ranges(given), given)


@pytest.mark.parametrize(
    ("ranges", "error", "message"),
    [
        ([(0, 1), (2, 2)], InputError, r"ranges\[1\]: expected lower < upper, got \(2.0, 2.0\)"),
        ([(3, 1)], InputError, r"ranges\[0\]"),
        ([(0, np.nan)], InputError, r"ranges\[0\]"),
        ([(np.nan, 0)], InputError, r"ranges\[0\]"),
        ([(np.inf, np.inf)], InputError, r"ranges\[0\]"),
        ((0, 1), ShapeError, r"write one range as \[\(lower, upper\)\]"),
        ([(0, 1, 2)], ShapeError, "ranges"),
        (np.empty((0, 2)), ShapeError, "K >= 1"),
        ([(0, 1), (2,)], DTypeError, "ranges"),
        ([("a", "b")], DTypeError, "ranges"),
        (np.array([[False, True]]), DTypeError, "bool"),
        (3, CCXError, "ranges"),
    ],
)
def test_bad_explicit_ranges(ranges: object, error: type[CCXError], message: str) -> None:
    with pytest.raises(error, match=message):
        check_ranges(ranges)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [optimal_ranges, pytest.param(sklearn_ranges, marks=pytest.mark.needs("sklearn"))])
@pytest.mark.parametrize("n_clusters", [0, -1, True, 1.5, "5", None, np.datetime64("2020-01-01"), [2], np.float32(2)])
def test_numbers_of_clusters_are_checked(function, n_clusters):
    with pytest.raises(InputError, match="n_clusters"):
        function(np.arange(10, dtype=np.float32), n_clusters)
