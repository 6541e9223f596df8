"""Estimates of all extensions at once, against their definition mask by mask and those of the published system."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ccx
from ccx import kernels
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.kernels import FormulaShapes
from tests import reference
from tests.support.estimate_cases import CORNERS, KINDS, Problem, masks_of, problems
from tests.support.parity_cases import CASES_WITH_UNITS, Bitmap, ParityCase, load_case

OR, AND, AND_NOT = 0, 1, 2
THREADS = st.sampled_from([1, 2, 3, None])


def packed(masks: NDArray[np.bool_]) -> NDArray[np.uint64]:
    rows: NDArray[np.uint64] = kernels.pack(masks.reshape(*masks.shape[:-2], -1))
    return rows


def inputs(problem: Problem, threads: int | None = 1) -> tuple[FormulaShapes, kernels.ConceptShapes, tuple[Any, ...]]:
    """Return the arguments of `estimate_extensions` without its last one."""
    grid = problem.bitmap.shape[-2:]
    occurring = ccx.Concepts.from_masks(problem.concepts).packed_rows()
    bitmap = packed(problem.bitmap)
    return (
        kernels.formula_shapes(packed(problem.formulas), bitmap, grid, threads=threads),
        kernels.concept_shapes(occurring, grid, len(problem.concepts), threads=threads),
        (
            kernels.concept_hits(occurring, bitmap, threads=threads)[None],
            kernels.popcount(bitmap)[None].astype(np.int32),
            problem.bitmap[0].size,
        ),
    )


@given(problem=problems(), kind=st.sampled_from(KINDS), threads=THREADS)
@example(Problem(CORNERS, np.zeros_like(CORNERS), CORNERS[0]), "mmesh", 1)  # an empty box counts cell (0, 0)
@example(Problem(CORNERS, ~np.zeros_like(CORNERS), CORNERS[0]), "cfh", 1)  # concepts that are full everywhere
def test_estimates_are_those_of_the_definition(problem: Problem, kind: str, threads: int | None) -> None:
    formulas, concepts, rest = inputs(problem, threads)
    got = kernels.estimate_extensions(formulas, concepts, *rest, kind, threads=threads)
    wanted = reference.estimate_extensions(*problem, kind)
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs[None], strict=True)


@given(problem=problems(), kind=st.sampled_from(KINDS), seed=st.integers(0, 9))
@settings(max_examples=30)
def test_many_bitmaps_at_once_are_as_one_by_one(problem: Problem, kind: str, seed: int) -> None:
    n_samples, *grid = problem.bitmap.shape
    others = masks_of(np.random.default_rng(seed), 2, n_samples, (grid[0], grid[1]))
    alone = [inputs(problem._replace(bitmap=bitmap)) for bitmap in (problem.bitmap, *others)]
    formulas = FormulaShapes(*(np.concatenate(parts) for parts in zip(*(one[0] for one in alone), strict=True)))
    hits, areas = (np.concatenate(parts) for parts in zip(*(one[2][:2] for one in alone), strict=True))
    n_cells = problem.bitmap[0].size
    together = kernels.estimate_extensions(formulas, alone[0][1], hits, areas, n_cells, kind, threads=2)
    for m, (shapes, concepts, rest) in enumerate(alone):
        one = kernels.estimate_extensions(shapes, concepts, *rest, kind, threads=1)
        for ours, theirs in zip(together, one, strict=True):
            np.testing.assert_array_equal(ours[m], theirs[0], strict=True)


@given(problem=problems())
def test_estimates_are_upper_bounds_of_the_iou(problem: Problem) -> None:
    """Unrounded, compared as fractions of integers."""
    formulas, concepts, rest = inputs(problem)
    estimates = {kind: kernels.estimate_extensions(formulas, concepts, *rest, kind) for kind in KINDS}
    for f, c in product(range(len(problem.formulas)), range(len(problem.concepts))):
        left, right = problem.formulas[f], problem.concepts[c]
        for operator, mask in enumerate((left | right, left & right, left & ~right)):
            intersection, union = (mask & problem.bitmap).sum(), (mask | problem.bitmap).sum()
            for numerators, denominators in estimates.values():
                numerator, denominator = numerators[0, f, c, operator], denominators[0, f, c, operator]
                assert denominator <= 0 or numerator * union >= intersection * denominator


def estimates_of(
    case: ParityCase, bitmap: Bitmap, level: str, kind: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return our estimates of the published candidates, unrounded, as the published code divides; and its own."""
    masks = case.masks
    candidates = bitmap.other[f"est.{level}.formulas"].astype(int)
    lefts, of = np.unique(candidates[:, :-2], axis=0, return_inverse=True)
    formulas = np.stack([masks[left[0] - 1] for left in lefts])
    if lefts.shape[1] == 3:
        for formula, (_, operator, concept) in zip(formulas, lefts, strict=True):
            other = masks[concept - 1]
            formula[:] = (formula | other, formula & other, formula & ~other)[operator]
    shapes, concepts, rest = inputs(Problem(formulas, masks, bitmap.cells))
    numerators, denominators = kernels.estimate_extensions(shapes, concepts, *rest, kind)
    which = 0, of.ravel(), candidates[:, -1] - 1, candidates[:, -2]
    with np.errstate(divide="ignore"):
        return numerators[which] / denominators[which], bitmap.other[f"est.{level}.{kind}"]


def test_estimates_are_those_of_the_published_system() -> None:
    """All 14,835 of the parity cases, to its 4 decimals."""
    n_estimates = 0
    for name, level, kind in product(CASES_WITH_UNITS, ("L2", "L3"), KINDS):
        case = load_case(name)
        for bitmap in case.bitmaps:
            if f"est.{level}.formulas" in bitmap.other:
                ours, theirs = estimates_of(case, bitmap, level, kind)
                # half a unit of the 4th decimal, and the float32 that it was stored as
                np.testing.assert_allclose(ours, theirs, rtol=6e-8, atol=0.5000001e-4)
                n_estimates += ours.size
    assert n_estimates == 14_835


def test_arguments_that_do_not_fit() -> None:
    problem = Problem(CORNERS, CORNERS, CORNERS[0])
    formulas, concepts, (hits, areas, n_cells) = inputs(problem)
    with pytest.raises(InputError, match='kind: expected "mmesh", "cfh" or "areas"'):
        kernels.estimate_extensions(formulas, concepts, hits, areas, n_cells, "none")
    with pytest.raises(ShapeError, match=r"concept_intersections: expected \[1, 2\]"):
        kernels.estimate_extensions(formulas, concepts, hits[:, :1], areas, n_cells, "cfh")
    with pytest.raises(ShapeError, match=r"bitmap_areas: expected \[1, 1\]"):
        kernels.estimate_extensions(formulas, concepts, hits, areas[0], n_cells, "cfh")
    occurring = ccx.Concepts.from_masks(CORNERS).packed_rows()
    with pytest.raises(ShapeError, match=r"bitmap: expected uint64\[1, 1\]"):
        kernels.concept_hits(occurring, np.zeros((2, 1), np.uint64))
    with pytest.raises(DTypeError, match="bitmap"):
        kernels.concept_hits(occurring, np.zeros((1, 1), np.int64))
    with pytest.raises(ShapeError, match="masks"):
        kernels.formula_shapes(np.zeros((1, 1), np.uint64), np.zeros((1, 1), np.uint64), (2, 2))
