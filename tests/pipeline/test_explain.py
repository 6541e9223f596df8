"""`explain`: from activations to explanations, against the oracle's bitmaps; statuses; bad input."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ccx
from ccx.clustering import unit_ranges
from ccx.errors import BackendError, CCXError, DTypeError, InputError, MemoryBudgetError, MissingExtraError, ShapeError
from tests import reference
from tests.reference import positions

N, GRID = 6, (7, 10)


def made_concepts(seed: int = 0, n_concepts: int = 6, grid: tuple[int, int] = GRID, **options: Any) -> ccx.Concepts:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_concepts + 1, (N, 2, *grid))
    names = [f"c{c}" for c in range(n_concepts, 0, -1)]
    return ccx.Concepts.from_label_maps(labels, names, valid=rng.random((N, *grid)) < 0.95, **options)


def made_activations(*shape: int, seed: int = 1, signed: bool = False) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=(N, *shape)).astype(np.float32)
    return values if signed else np.maximum(values, 0)


CONCEPTS = made_concepts()
MAPS = made_activations(5, 3, 4)


def expected_of(
    maps: NDArray[Any], concepts: ccx.Concepts, ranges: Callable[[NDArray[Any]], NDArray[Any]], **options: Any
) -> list[tuple[Any, ...]]:
    """Explain each unit's bitmaps, made by the oracle, one at a time; maps float[N, U, h, w]."""
    rows = []
    valid = concepts.mask("c1 OR NOT c1")
    counted = positions.valid_positions(valid, maps.shape[2:])
    for unit in range(maps.shape[1]):
        values = reference.upsample(maps[:, unit], concepts.shape)
        for number, limits in enumerate(ranges(maps[:, unit][counted]), start=1):
            bitmap = reference.inside(values, limits)
            (found,) = ccx.explain_bitmaps(bitmap[None], concepts, threads=1, **options)
            rows.append((unit, number, tuple(limits), *what_was_found(found)))
    return rows


def what_was_found(found: ccx.Explanation) -> tuple[Any, ...]:
    return (
        found.formula, found.iou, found.intersection, found.union, found.bitmap_cells, found.formula_cells,
        found.visited, found.alternatives, found.score,
    )  # fmt: skip


def rows_of(found: ccx.Explanations) -> list[tuple[Any, ...]]:
    return [(one.unit, one.range_index, one.range, *what_was_found(one)) for one in found]


# Activations to explanations -----------------------------------------------------------------------------------------


@given(
    shape=st.sampled_from(((3, 4), (7, 10), (1, 1), (1, 9), (12, 5), (7, 1))),
    clusters=st.sampled_from((1, 2, 5)),
    dtype=st.sampled_from((np.float16, np.float32, np.float64)),
    signed=st.booleans(),
    seed=st.integers(0, 2**32),
    threads=st.integers(1, 3),
)
@settings(max_examples=40)
def test_agrees_with_bitmaps_of_the_oracle(
    shape: tuple[int, int], clusters: int, dtype: type, signed: bool, seed: int, threads: int
) -> None:
    maps = made_activations(2, *shape, seed=seed, signed=signed).astype(dtype)
    options = {"length": 2, "beam": 3, "top": 2}

    def ranges(values: NDArray[Any]) -> NDArray[Any]:
        return unit_ranges(values.astype(np.float32), clusters=clusters, quantile=0.1)

    found = ccx.explain(maps, CONCEPTS, clusters=clusters, quantile=0.1, threads=threads, **options)
    assert rows_of(found) == expected_of(maps, CONCEPTS, ranges, **options)


@pytest.mark.parametrize("clusters", [1, 5])
def test_values_and_maps(clusters: int) -> None:
    """[N, U] are maps of 1×1."""
    for shape, maps_shape in (((4,), (4, 1, 1)), ((4, 2, 3), (4, 2, 3))):
        activations = made_activations(*shape)
        found = ccx.explain(activations, CONCEPTS, clusters=clusters)
        maps = activations.reshape(N, *maps_shape)
        assert found == ccx.explain(maps, CONCEPTS, clusters=clusters)
        assert rows_of(found) == expected_of(maps, CONCEPTS, lambda values: unit_ranges(values, clusters=clusters))
        assert found.units == (0, 1, 2, 3)


def test_tokens_on_their_own_grid() -> None:
    """Text: 1×T cells, no interpolation; a cell equal to an end point lies in no range."""
    labels = np.array([[[1, 1, 2, 0]], [[0, 2, 2, 1]]])
    concepts = ccx.Concepts.from_label_maps(labels, ["noun", "verb"])
    activations = np.array([[[3.0, 2.0, 0.5, 0.0]], [[0.0, 1.0, 1.0, 2.5]]], np.float32)
    (found,) = ccx.explain(activations, concepts, ranges=[(1.0, np.inf)])
    assert (str(found.formula), found.intersection, found.union, found.bitmap_cells) == ("noun", 3, 3, 3)
    (found,) = ccx.explain(activations, concepts, ranges=[(0.5, 2.0)])
    assert (str(found.formula), found.iou, found.bitmap_cells) == ("verb", 2 / 3, 2)


@pytest.mark.parametrize(("tokens", "grid"), [(196, (14, 14)), (9, (1, 10)), (4, (4, 1))])
def test_tokens_that_are_not_the_cells_are_refused(tokens, grid) -> None:
    """Patches of an image, or class tokens among them, would be stretched over the grid."""
    masks = np.ones((2, N, *grid), np.bool_)
    with pytest.raises(ShapeError, match=r"one token per cell .* got float32\[.*\]; lay patches on their grid"):
        ccx.explain(np.zeros((N, 3, tokens), np.float32), masks)


def test_units_behind_tokens_are_refused_with_the_axes_to_swap() -> None:
    with pytest.raises(ShapeError, match=r"units come before tokens: activations.swapaxes\(1, 2\)"):
        ccx.explain(np.zeros((N, 10, 3), np.float32), np.ones((2, N, 1, 10), np.bool_))


def test_memory_layout_and_type_of_activations() -> None:
    expected = ccx.explain(MAPS, CONCEPTS)
    strided = np.zeros((N, 10, 3, 8), np.float32)
    strided[:, ::2, :, ::2] = MAPS
    read_only = MAPS.copy()
    read_only.flags.writeable = False
    same = [
        np.asfortranarray(MAPS), strided[:, ::2, :, ::2], MAPS[::-1].copy()[::-1], read_only, MAPS.astype(np.float64),
        MAPS.astype(">f4"), MAPS.tolist(),
    ]  # fmt: skip
    for activations in same:
        assert ccx.explain(activations, CONCEPTS) == expected


def test_raw_masks_are_wrapped() -> None:
    masks = np.random.default_rng(0).random((3, N, *GRID)) < 0.4
    found = ccx.explain(MAPS, masks)
    assert found == ccx.explain(MAPS, ccx.Concepts.from_masks(masks))
    assert {name for one in found.explained for name in one.formula.concepts} <= {"1", "2", "3"}
    assert ccx.explain_bitmaps(masks, masks)[1].formula == ccx.parse("2")


def test_units() -> None:
    whole = ccx.explain(MAPS, CONCEPTS)
    for units, expected in (([3, 0, 3], (0, 3)), (np.array([2]), (2,)), ({4, 1}, (1, 4)), (range(1, 3), (1, 2))):
        found = ccx.explain(MAPS, CONCEPTS, units=units)
        assert found.units == expected
        assert list(found) == [one for one in whole if one.unit in expected]
    assert ccx.explain(made_activations(20), CONCEPTS, units={16, 3}, clusters=1).units == (3, 16)  # no set's order


def test_explicit_ranges() -> None:
    ranges = np.array([(0.1, 0.5), (0.5, np.inf), (-np.inf, 0.3)])
    found = ccx.explain(MAPS, CONCEPTS, ranges=ranges)
    ascending = ranges[[2, 0, 1]]
    assert rows_of(found) == expected_of(MAPS, CONCEPTS, lambda _: ascending)
    assert ccx.explain(MAPS, CONCEPTS, ranges=ranges.tolist()) == found
    of_each = np.stack([ranges + 0.1 * unit for unit in range(5)])
    by_unit = ccx.explain(MAPS, CONCEPTS, ranges=of_each)
    for unit in range(5):
        alone = ccx.explain(MAPS, CONCEPTS, ranges=of_each[unit], units=[unit])
        assert list(by_unit.of_unit(unit)) == list(alone)
    assert list(ccx.explain(MAPS, CONCEPTS, ranges=of_each, units=[1, 3])) == [
        one for one in by_unit if one.unit in (1, 3)
    ]
    assert list(ccx.explain(MAPS, CONCEPTS, ranges=of_each[[1, 3]], units=[1, 3])) == [
        one for one in by_unit if one.unit in (1, 3)
    ]


@pytest.mark.needs("sklearn")
def test_published_clustering() -> None:
    found = ccx.explain(MAPS, CONCEPTS, clustering="sklearn", clusters=3)
    assert rows_of(found) == expected_of(
        MAPS, CONCEPTS, lambda values: unit_ranges(values, clusters=3, method="sklearn")
    )


def test_names_and_categories_restrict_formulas() -> None:
    concepts = made_concepts(categories=["x", "y", "x", "y", "x", "y"])  # c6 c5 c4 c3 c2 c1
    for options, allowed in (
        ({"only": ["c1", "c6"]}, {"c1", "c6"}),
        ({"categories": ["x"]}, {"c6", "c4", "c2"}),
        ({"categories": ["x", "y"], "only": ["c5"]}, {"c5"}),
        ({"categories": ["x"], "only": ["c1", "c2"]}, {"c2"}),
    ):
        found = ccx.explain(MAPS, concepts, top=50, **options)
        used = {
            name
            for one in found
            for formula in (one, *one.alternatives)
            if formula.formula
            for name in formula.formula.concepts
        }
        assert used == allowed
        of_subset = ccx.explain(MAPS, concepts.subset(**options), top=50)
        assert [(one.formula, one.iou) for one in found] == [(one.formula, one.iou) for one in of_subset]
    assert found.settings["only"] == ["c2"]
    assert ccx.explain(MAPS, concepts).settings["only"] is None
    assert ccx.explain(MAPS, concepts, categories=["x", "y"]).settings["only"] is None


def test_settings_and_versions_are_kept() -> None:
    found = ccx.explain(MAPS, CONCEPTS, length=2, units=[1], ranges=[(0.5, np.inf)], candidates=np.int64(4))
    assert found.settings == {
        "search": "beam", "published": False, "length": 2, "beam": 5, "candidates": 4, "length_penalty": 1.0, "top": 1,
        "min_iou": 0.0, "scoring": "iou", "only": None, "permutations": 0, "seed": 0, "groups": None,
        "fit_samples": None,
        "test_samples": None, "clusters": 5, "quantile": 0.005, "clustering": "optimal", "ranges": [[[0.5, "inf"]]],
        "units": [1],
    }  # fmt: skip
    assert (found.concepts_hash, found.version) == (CONCEPTS.content_hash, ccx.__version__)


def test_options_of_numpy() -> None:
    plain = ccx.explain(MAPS, CONCEPTS, length=2, beam=3, top=2, length_penalty=0.5, min_iou=0.125, clusters=2)
    typed = ccx.explain(
        MAPS, CONCEPTS, length=np.int8(2), beam=np.uint8(3), top=np.int64(2), length_penalty=np.float32(0.5),
        min_iou=np.float16(0.125), clusters=np.int32(2), threads=np.int64(2),
    )  # fmt: skip
    assert typed == plain
    assert type(typed.explained[0].score) is float


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_change_nothing(threads: int) -> None:
    maps = made_activations(9, 3, 4)
    assert ccx.explain(maps, CONCEPTS, threads=threads, top=3) == ccx.explain(maps, CONCEPTS, threads=None, top=3)
    (one,) = ccx.explain(maps, CONCEPTS, units=[4], ranges=[(0.1, 2)], threads=threads)
    assert one == ccx.explain(maps, CONCEPTS, ranges=[(0.1, 2)])[4]


# Statuses ------------------------------------------------------------------------------------------------------------


def units_of_every_kind() -> NDArray[np.float32]:
    maps = np.repeat(made_activations(1, *GRID), 7, axis=1)
    maps[:, 1] = 0.0
    maps[:, 2] = 2.5
    maps[:, 3] = -1.0
    maps[:, 4] = np.where(maps[:, 4] > 1, 1, 0)  # two values
    maps[:, 5] = -0.0
    return maps


def test_units_without_explanation_do_not_stop_the_others() -> None:
    maps = units_of_every_kind()
    found = ccx.explain(maps, CONCEPTS, clusters=3)
    statuses = {unit: [str(one.status) for one in found.of_unit(unit)] for unit in found.units}
    assert statuses == {
        0: ["explained"] * 3,
        1: ["silent"],
        2: ["constant"],
        3: ["constant"],
        4: ["single_value"],
        5: ["silent"],
        6: ["explained"] * 3,
    }
    silent, two_values = found.of_unit(1)[0], found.of_unit(4)[0]
    assert (silent.range, silent.range_index, silent.formula, silent.iou, silent.visited) == (None, 1, None, 0.0, 0)
    assert two_values.range == (1.0, 1.0)
    assert [one.unit for one in found] == sorted(one.unit for one in found)
    assert list(found.of_unit(0)) == list(ccx.explain(maps[:, :1], CONCEPTS, clusters=3))
    top = ccx.explain(maps, CONCEPTS, clusters=1, quantile=0.2)
    assert [str(one.status) for one in top] == [
        "explained", "silent", "constant", "constant", "explained", "silent", "explained"
    ]  # fmt: skip
    assert top[2].range == (2.5, np.inf)


def test_a_constant_unit_inside_an_explicit_range_is_explained() -> None:
    inside, outside = ccx.explain(units_of_every_kind(), CONCEPTS, units=[2], ranges=[(2.0, 3.0), (3.0, 4.0)])
    assert (inside.status, inside.bitmap_cells) == ("explained", CONCEPTS.n_cells)
    assert (outside.status, outside.bitmap_cells) == ("constant", 0)


def test_no_overlap_and_min_iou() -> None:
    labels = np.zeros((1, 1, 2, 6), np.int64)
    labels[0, 0, 0, :3] = 1
    concepts = ccx.Concepts.from_label_maps(labels, ["a", "absent"])
    maps = np.zeros((1, 2, 2, 6), np.float32)
    maps[0, 0, 1] = maps[0, 1, 0] = 1.0
    found = ccx.explain(maps, concepts, ranges=[(0.5, np.inf), (7.0, 8.0)], min_iou=0.6)
    assert [str(one.status) for one in found] == ["no_overlap", "empty", "below_min_iou", "empty"]
    for one in found:
        assert (one.formula, one.iou, one.intersection, one.union, one.formula_cells) == (None, 0.0, 0, 0, 0)
        assert one.alternatives == ()
    assert [one.bitmap_cells for one in found] == [6, 0, 6, 0]
    (good,) = ccx.explain(maps, concepts, ranges=[(0.5, np.inf)], min_iou=0.5, units=[1])
    assert (good.status, good.iou, str(good.formula)) == ("explained", 0.5, "a")


def test_data_without_a_valid_cell() -> None:
    concepts = ccx.Concepts.from_masks(np.ones((2, N, *GRID), np.bool_), valid=np.zeros((N, *GRID), np.bool_))
    for options in ({}, {"fit_samples": [0, 2]}, {"ranges": [(0, 1)]}):
        argument = "fit_samples" if "fit_samples" in options else "concepts"
        with pytest.raises(InputError, match=f"{argument}: expected at least one valid cell, got none that counts"):
            ccx.explain(MAPS, concepts, **options)


@pytest.mark.states("Activations", "one value per sample, [N, U]", "accepted", "it fills the sample, to the last bit")
@pytest.mark.parametrize("shape", [(GRID, (1, 1)), ((1, 63), (1, 1)), ((63, 5), (1, 5)), ((7, 64), (7, 1))])
def test_parts_of_samples_leak_into_no_range(shape: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """Ends of clusters are values: a cell that is off by one unit in the last place would lie inside a range."""
    (height, width), source = shape
    values = np.random.default_rng(0).standard_normal((60, 3, *source)).astype(np.float32)
    concepts = ccx.Concepts.from_masks(np.ones((1, 60, height, width), np.bool_), ["all"])
    given = values[:, :, 0, 0] if source == (1, 1) else values
    found = ccx.explain(given, concepts, clusters=4, length=1)
    for one in found:
        assert one.range is not None
        lower, upper = one.range
        exact = values[:, one.unit].astype(np.float64)
        inside = ((lower < exact) & (exact < upper)).sum()
        assert one.bitmap_cells == inside * (height // source[0]) * (width // source[1])


def test_no_bitmap_at_all() -> None:
    assert len(ccx.explain_bitmaps(np.zeros((0, N, *GRID), np.bool_), CONCEPTS)) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite(bad: float) -> None:
    maps = MAPS.copy()
    maps[2, 1, 0, 0] = maps[5, 3, 2, 2] = bad
    with pytest.raises(
        InputError,
        match="activations: expected finite values, got NaN, infinity or a value beyond float32 in units 1, 3; mend",
    ):
        ccx.explain(maps, CONCEPTS)
    with pytest.raises(InputError, match="in unit 3;"):
        ccx.explain(maps, CONCEPTS, units=[0, 3])
    assert ccx.explain(maps, CONCEPTS, units=[0, 2, 4]) == ccx.explain(MAPS, CONCEPTS, units=[0, 2, 4])


def test_many_units_that_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccx.pipeline.sources._CHECK_VALUES", 100)  # several batches
    maps = made_activations(30, 2, 1)
    maps[5] = np.nan
    with pytest.raises(InputError, match="in units 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 20 more;"):
        ccx.explain(maps, CONCEPTS)


def test_float64_beyond_float32() -> None:
    maps = MAPS.astype(np.float64)
    maps[0, 2, 0, 0] = 1e39
    with pytest.raises(InputError, match="in unit 2;"):
        ccx.explain(maps, CONCEPTS)
    maps[0, 2, 0, 0] = 1e-60
    ccx.explain(maps, CONCEPTS)


# Bad input -----------------------------------------------------------------------------------------------------------

OPTIONS: list[tuple[dict[str, Any], type[CCXError], str]] = [
    ({"threads": 0}, InputError, "threads: expected None or an integer >= 1, got 0"),
    ({"threads": 1.5}, InputError, "threads: expected None or an integer >= 1, got 1.5"),
    ({"progress": "yes"}, InputError, "progress: expected None, a bool or a function, got 'yes'"),
    ({"search": "best"}, InputError, 'search: expected "beam" or "optimal" or "mmesh" or'),
    ({"published": True}, InputError, "published: expected True only with one of the published searches"),
    ({"length": 0}, InputError, "length: expected an integer from 1 to 64, got 0"),
    ({"beam": None}, InputError, "beam: expected an integer >= 1, got None"),
    ({"candidates": 2.5}, InputError, "candidates: expected an integer >= 1, got 2.5"),
    ({"length_penalty": "1"}, InputError, "length_penalty: expected 0 < length_penalty <= 1, got '1'"),
    ({"top": 0}, InputError, "top: expected an integer >= 1, got 0"),
    ({"min_iou": 2}, InputError, "min_iou: expected 0 <= min_iou <= 1, got 2"),
]
EXPLAIN_OPTIONS: list[tuple[dict[str, Any], type[CCXError], str]] = [
    ({"clusters": 0}, InputError, "clusters: expected an integer >= 1, got 0"),
    ({"clusters": 2.0}, InputError, "clusters: expected an integer >= 1, got 2.0"),
    ({"quantile": 0.0, "clusters": 1}, InputError, "quantile: expected a number between 0 and 1, got 0.0"),
    ({"quantile": 7}, InputError, "quantile: expected a number between 0 and 1, got 7"),
    ({"quantile": None}, InputError, "quantile: expected a number between 0 and 1, got None"),
    ({"quantile": np.nan}, InputError, "quantile: expected a number between 0 and 1, got nan"),
    ({"clustering": "best"}, InputError, 'clustering: expected "optimal" or "sklearn", got'),
]
OTHERS: list[tuple[dict[str, Any], type[CCXError], str]] = [
    ({"only": ["zebra"]}, InputError, "concept: expected one of 6 names, got 'zebra'"),
    ({"only": "c1"}, InputError, "only: expected a sequence of texts, got the one text 'c1'; write ['c1']"),
    ({"only": 1}, InputError, "only: expected a sequence of texts, got 1"),
    ({"only": []}, InputError, "only: expected at least one concept, got none"),
    ({"categories": ["scene"]}, InputError, "categories: expected some of [], got scene; give categories when"),
    ({"units": 3}, InputError, "units: expected a list of units, got 3; write units=[3]"),
    ({"units": []}, InputError, "units: expected at least one unit, got none"),
    ({"units": [5]}, InputError, "units: expected integers from 0 to 4, got 5"),
    ({"units": [-1]}, InputError, "units: expected integers from 0 to 4, got -1"),
    ({"units": [1.0]}, InputError, "units: expected integers from 0 to 4, got 1.0"),
    ({"ranges": []}, ShapeError, "ranges: expected numbers[K, 2], K >= 1, got float64[0]"),
    ({"ranges": (0.1, 0.2)}, ShapeError, "ranges: expected numbers[K, 2], K >= 1, got float64[2]"),
    ({"ranges": [(0.2, 0.1)]}, InputError, "ranges[0]: expected lower < upper, got (0.2, 0.1)"),
    ({"ranges": [(0.1, 0.2), (0.1, np.nan)]}, InputError, "ranges[1]: expected lower < upper, got (0.1, nan)"),
    ({"ranges": np.ones((4, 1, 2))}, ShapeError, "ranges: expected numbers[5, K, 2], got float64[4, 1, 2]"),
    ({"ranges": "top"}, DTypeError, "ranges: expected an array"),
    ({"ranges": [(False, True)]}, DTypeError, "ranges: expected numbers[K, 2], got bool[1, 2]"),
    ({"activations": MAPS.astype(int)}, DTypeError, "activations: expected floating point, got int64[6, 5, 3, 4]"),
    ({"activations": MAPS[0, 0, 0]}, ShapeError, "activations: expected float32[N, U], [N, U, T] or [N, U, h, w], got"),
    ({"activations": MAPS[None]}, ShapeError, "activations: expected float32[N, U], [N, U, T] or [N, U, h, w], got"),
    ({"activations": MAPS[:5]}, ShapeError, "activations: expected 6 samples, got float32[5, 5, 3, 4]; give one row"),
    ({"activations": MAPS[:, :0]}, ShapeError, "activations: expected at least one unit and position, got float32[6"),
    ({"activations": MAPS[..., :0]}, ShapeError, "activations: expected at least one unit and position, got float32["),
    ({"activations": None}, DTypeError, "activations: expected an array (NumPy, CuPy, torch) or nested lists"),
    ({"concepts": np.zeros((2, N, *GRID), np.int64)}, DTypeError, "label maps go to Concepts.from_label_maps"),
    ({"concepts": np.zeros((N, *GRID), np.uint8)}, DTypeError, "from_label_maps(labels, names)"),
    ({"concepts": np.zeros((N, *GRID), np.bool_)}, ShapeError, "masks: expected bool[C, N, H, W], got bool[6, 7, 10]"),
    ({"concepts": "concepts.ccx"}, DTypeError, "masks: expected an array"),
]  # fmt: skip
BITMAPS = np.zeros((3, N, *GRID), np.bool_)
BAD_BITMAPS: list[tuple[dict[str, Any], type[CCXError], str]] = [
    (
        {"bitmaps": BITMAPS.astype(int)},
        DTypeError,
        "bitmaps: expected bool[M, 6, 7, 10] or packed uint64[M, 6, 2], got",
    ),
    ({"bitmaps": BITMAPS[0]}, ShapeError, "got bool[6, 7, 10]; bring them to the grid of the concepts"),
    ({"bitmaps": BITMAPS[:, :5]}, ShapeError, "got bool[3, 5, 7, 10]; bring them to the grid of the concepts"),
    ({"bitmaps": BITMAPS[..., :9]}, ShapeError, "got bool[3, 6, 7, 9]; bring them to the grid of the concepts"),
    ({"bitmaps": np.zeros((3, N, 1), np.uint64)}, ShapeError, "got uint64[3, 6, 1]; bring them to the grid"),
    (
        {"bitmaps": np.full((1, N, 2), 2**63, np.uint64)},
        InputError,
        "bitmaps: expected zeros in the bits behind bit 69",
    ),
    ({"bitmaps": None}, DTypeError, "bitmaps: expected an array"),
]


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step that takes long fail."""

    def begun(*_: Any, **__: Any) -> None:
        pytest.fail("work has begun")

    monkeypatch.setattr(ccx.Concepts, "prepare", begun)
    for name in ("placement.Counter.of_ranges", "placement.Counter.of_bitmaps", "explaining.RowLog"):
        monkeypatch.setattr(f"ccx.pipeline.{name}", begun)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("options", "kind", "message"), [*OPTIONS, *EXPLAIN_OPTIONS, *OTHERS])
def test_bad_input_of_explain(options: dict[str, Any], kind: type[CCXError], message: str) -> None:
    with pytest.raises(kind) as error:
        ccx.explain(**{"activations": MAPS, "concepts": CONCEPTS, "out": "nowhere", **options})
    assert type(error.value) is kind
    assert message in str(error.value)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("options", "kind", "message"), [*OPTIONS, *OTHERS[:5], *BAD_BITMAPS])
def test_bad_input_of_explain_bitmaps(options: dict[str, Any], kind: type[CCXError], message: str) -> None:
    with pytest.raises(kind) as error:
        ccx.explain_bitmaps(**{"bitmaps": BITMAPS, "concepts": CONCEPTS, "out": "nowhere", **options})
    assert type(error.value) is kind
    assert message in str(error.value)


@pytest.mark.parametrize(("options", "kind", "message"), [*OPTIONS, *EXPLAIN_OPTIONS])
def test_options_are_checked_before_masks_are_read(
    options: dict[str, Any], kind: type[CCXError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ccx.Concepts, "from_masks", lambda *_, **__: pytest.fail("work has begun"))
    with pytest.raises(kind):
        ccx.explain(MAPS, BITMAPS, **options)


@pytest.mark.usefixtures("no_work")
def test_memory_is_estimated_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccx.memory.available_bytes", lambda: 1_000)
    monkeypatch.setattr("ccx.pipeline.placement._LARGE", 0)
    for call in (lambda: ccx.explain(MAPS, CONCEPTS), lambda: ccx.explain_bitmaps(BITMAPS, CONCEPTS)):
        with pytest.raises(
            MemoryBudgetError, match=r"(threads|bitmaps): expected work that fits .*; (use|explain) fewer"
        ):
            call()


def test_missing_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r'clustering by scikit-learn needs .*pip install "ccx\[sklearn\]"'):
        ccx.explain(MAPS, CONCEPTS, clustering="sklearn")


# Progress and output -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_progress_counts_units(threads: int) -> None:
    calls: list[tuple[int, int]] = []
    ccx.explain(MAPS, CONCEPTS, units=[0, 2, 3], progress=lambda *call: calls.append(call), threads=threads)
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]
    calls.clear()
    ccx.explain_bitmaps(BITMAPS[:2], CONCEPTS, progress=lambda *call: calls.append(call), threads=threads)
    assert calls == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_in_the_callback_stops_the_run(threads: int) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        ccx.explain(made_activations(40, 3, 4), CONCEPTS, progress=stop, threads=threads)


def test_nothing_is_printed_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    for progress in (None, False):
        ccx.explain(MAPS, CONCEPTS, progress=progress)
        ccx.explain_bitmaps(BITMAPS, CONCEPTS, progress=progress)
    assert capfd.readouterr() == ("", "")


def test_a_bar_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for progress, shown in ((None, True), (False, False)):
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        ccx.explain(MAPS, CONCEPTS, progress=progress)
        assert ("explaining units" in terminal.getvalue()) is shown
    monkeypatch.setattr(sys, "stderr", piped := io.StringIO())
    ccx.explain(MAPS, CONCEPTS, progress=True)
    assert "explaining units" in piped.getvalue()
    assert "5/5" in piped.getvalue()
    assert capsys.readouterr().out == ""


# torch ---------------------------------------------------------------------------------------------------------------


@pytest.mark.needs("torch")
def test_torch_activations() -> None:
    import torch

    expected = ccx.explain(MAPS, CONCEPTS)
    plain = torch.from_numpy(MAPS)
    before = plain.clone()
    tensors = {
        "plain": plain,
        "with a gradient": plain.clone().requires_grad_(),
        "part of a graph": plain.clone().requires_grad_() * 1,
        "channels last": plain.to(memory_format=torch.channels_last),
        "strided": torch.stack([plain, plain], dim=-1)[..., 1],
        "double": plain.double(),
    }
    for name, tensor in tensors.items():
        assert ccx.explain(tensor, CONCEPTS) == expected, name
    assert torch.equal(plain, before)
    assert ccx.explain(plain.half(), CONCEPTS) == ccx.explain(MAPS.astype(np.float16), CONCEPTS)
    assert ccx.explain(plain.bfloat16(), CONCEPTS) == ccx.explain(plain.bfloat16().float(), CONCEPTS)
    with pytest.raises(BackendError, match=r"activations: got a torch tensor on meta, which has no numbers"):
        ccx.explain(plain.to("meta"), CONCEPTS)


@pytest.mark.needs("torch")
def test_torch_masks_bitmaps_ranges_and_units() -> None:
    import torch

    masks = np.random.default_rng(0).random((3, N, *GRID)) < 0.4
    ranges = [[0.1, 0.6]]
    expected = ccx.explain(MAPS, masks, ranges=ranges, units=[1, 2])
    found = ccx.explain(
        torch.from_numpy(MAPS), torch.from_numpy(masks), ranges=torch.tensor(ranges, dtype=torch.float64),
        units=torch.tensor([1, 2]),
    )  # fmt: skip
    assert found == expected
    bitmaps = masks ^ (np.random.default_rng(1).random(masks.shape) < 0.1)
    assert ccx.explain_bitmaps(torch.from_numpy(bitmaps), CONCEPTS) == ccx.explain_bitmaps(bitmaps, CONCEPTS)
