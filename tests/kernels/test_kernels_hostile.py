"""What would lead a kernel beside its arrays is refused before it runs."""

from __future__ import annotations

import numpy as np
import pytest

from ccx import Concepts, kernels
from ccx.errors import InputError, ShapeError
from ccx.kernels.atoms import concept_rows
from ccx.kernels.formulas import Extensions

GRID = (3, 5)


def occurring():
    masks = np.random.default_rng(0).random((4, 6, *GRID)) < 0.4
    return concept_rows(Concepts.from_masks(masks).atoms, np.arange(6))


def with_one(array, place, value):
    changed = array.copy()
    changed[place] = value
    return changed


@pytest.mark.parametrize("function", [kernels.bounding_boxes, kernels.inscribed_rectangles])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (9, 7)])
def test_ones_behind_the_last_cell_are_refused(function, shape):
    n_words = kernels.n_words(shape[0] * shape[1])
    with pytest.raises(InputError, match="rows: expected zeros in the bits behind bit"):
        function(np.full((2, n_words), 2**64 - 1, np.uint64), shape)
    rows = kernels.pack(np.ones((2, shape[0] * shape[1]), np.bool_))
    assert function(rows, shape).tolist() == [[0, 0, *shape]] * 2


def test_shapes_of_formulas_refuse_them_too():
    rows = np.full((1, 2, 1), 2**64 - 1, np.uint64)
    with pytest.raises(InputError, match="rows: expected zeros in the bits behind bit 14"):
        kernels.formula_shapes(rows, rows[0], GRID)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("starts", lambda a: with_one(a, -1, a[-1] + 1)),
        ("starts", lambda a: with_one(a, 0, -1)),
        ("starts", lambda a: with_one(a, slice(1, 3), (2**63 - 1, -(2**63)))),  # differences that wrap around
        ("starts", lambda a: a[:0]),
        ("concepts", lambda a: with_one(a, 2, -1)),
        ("concepts", lambda a: a[:-1]),
        ("row_of", lambda a: with_one(a, 2, 10_000)),
        ("row_of", lambda a: with_one(a, 2, -2)),
        ("row_of", lambda a: a.astype(np.float64)),
        ("areas", lambda a: a[:-1]),
        ("rows", lambda a: a[:-1]),
    ],
)
def test_occurrences_that_do_not_fit_each_other_are_refused(field, change):
    good = occurring()
    bitmap = np.zeros((6, 1), np.uint64)
    kernels.concept_hits(good, bitmap)
    bad = good._replace(**{field: change(getattr(good, field))})
    with pytest.raises(InputError):
        kernels.concept_hits(bad, bitmap)
    with pytest.raises(InputError):
        kernels.concept_shapes(bad, GRID, 4)


def test_occurrences_of_concepts_beyond_those_announced_are_refused():
    with pytest.raises(InputError, match="occurring: expected starts, concepts"):
        kernels.concept_shapes(occurring(), GRID, 2)


def test_padding_of_occurrences_is_refused():
    good = occurring()
    with pytest.raises(InputError, match="occurring"):
        kernels.concept_shapes(good._replace(rows=good.rows | np.uint64(1 << 20)), GRID, 4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("operators", np.zeros((2, 0), np.uint8)),
        ("operators", np.zeros((1, 1), np.uint8)),
        ("operators", np.zeros((2, 1), np.int64)),
        ("concepts", np.zeros((2, 2), np.int64)),
        ("concepts", np.zeros(2, np.int32)),
        ("intersections", np.zeros(1, np.int64)),
    ],
)
def test_parents_that_do_not_fit_each_other_are_refused(field, value):
    counts = np.ones(2, np.int64)
    good = Extensions(np.array([[0, 1], [1, 2]], np.int32), np.zeros((2, 1), np.uint8), counts, counts, 0)
    candidates, places = np.array([3 * 2]), np.zeros(1, np.int64)
    kernels.best_placed(good, candidates, places, 4, 1)
    with pytest.raises(ShapeError if field != "intersections" else InputError):
        kernels.best_placed(good._replace(**{field: value}), candidates, places, 4, 1)
