"""The published estimates of a formula's IoU, for all extensions of some formulas at once.

MMESH, CFH and areas (La Rosa et al. 2023) bound the IoU of (F op c) from what is known of F and c by
sample: areas, intersections with the bitmap, bounding boxes, largest inscribed rectangles. Estimates
are sums over samples; they are kept as integer numerators and denominators, so that comparing them is
exact. Unrounded, all three are upper bounds of the IoU (docs/heuristics.md).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ccx.checks import shown
from ccx.errors import InputError, ShapeError
from ccx.jobs import check_threads
from ccx.kernels.atoms import ConceptRows
from ccx.kernels.backend import backend_for
from ccx.kernels.conversion import describe, on_gpu
from ccx.kernels.places import converted
from ccx.kernels.rows import and_popcount, as_rows, check_padding, popcount
from ccx.kernels.shapes import bounding_boxes, check_grid, inscribed_rectangles
from ccx.typing import IntArray

__all__ = [
    "ConceptShapes",
    "Estimate",
    "FormulaShapes",
    "concept_hits",
    "concept_shapes",
    "estimate_extensions",
    "formula_shapes",
]

Estimate: TypeAlias = Literal["mmesh", "cfh", "areas"]


class FormulaShapes(NamedTuple):
    """What is known of F formulas by sample, for U bitmaps.

    `areas` int32[U, F, N], `intersections` with the bitmap int32[U, F, N], `boxes` and `rectangles`
    int32[U, F, N, 4]: half-open (row0, col0, row1, col1), zeros where the mask is empty.
    """

    areas: npt.NDArray[np.int32]
    intersections: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.int32]
    rectangles: npt.NDArray[np.int32]


class ConceptShapes(NamedTuple):
    """The same of the concepts, only where they occur; entries of sample n are ``starts[n]:starts[n + 1]``.

    `starts` int64[N + 1], `concepts` int32[R], `areas` int32[R], `boxes` and `rectangles` int32[R, 4],
    `full_only` bool[C]: the concept covers whole samples or nothing (as scenes do).
    """

    starts: IntArray
    concepts: npt.NDArray[np.int32]
    areas: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.int32]
    rectangles: npt.NDArray[np.int32]
    full_only: npt.NDArray[np.bool_]


def concept_shapes(
    occurring: ConceptRows, shape: tuple[int, int], n_concepts: int, *, threads: int | None = None
) -> ConceptShapes:
    """Return the shapes of all concepts where they occur, once per data set.

    Raises
    ------
    ShapeError
        If the grid (H, W) is not that of the concepts.

    """
    height, width = check_grid(shape)
    as_rows(occurring.rows, "occurring.rows", height * width)
    check_padding("occurring.rows", occurring.rows, height * width)
    _check_occurring(occurring, n_concepts)
    backend = backend_for(occurring.rows, occurring.row_of).estimates
    shapes = backend.concept_shapes(occurring, (height, width), n_concepts, check_threads(threads))
    return ConceptShapes(occurring.starts, occurring.concepts, occurring.areas, *shapes)


def concept_hits(occurring: ConceptRows, bitmap: Any, *, threads: int | None = None) -> npt.NDArray[np.int32]:
    """Count the cells that each occurrence of a concept shares with a bitmap: uint64[N, n_words] -> int32[R].

    Raises
    ------
    DTypeError, ShapeError
        If the bitmap is not uint64, or not of the samples and the grid of the concepts.

    """
    bitmap = as_rows(bitmap, "bitmap")
    _check_occurring(occurring)
    wanted = (occurring.starts.size - 1, occurring.rows.shape[1])
    if bitmap.shape != wanted:
        remedy = "use the samples and the grid of the concepts"
        raise ShapeError("bitmap", wanted=f"uint64{list(wanted)}", got=describe(bitmap), remedy=remedy)
    backend = backend_for(occurring.rows, bitmap).estimates
    hits: npt.NDArray[np.int32] = backend.concept_hits(occurring, bitmap, check_threads(threads))
    return hits


def _check_occurring(occurring: ConceptRows, n_concepts: int | None = None) -> None:
    """Raise `InputError` if a kernel would read or write beside the rows; what lies on a GPU was checked before."""
    starts, concepts, areas, row_of, rows = occurring
    if on_gpu(rows):
        return
    n, stop = concepts.size, np.iinfo(np.int32).max if n_concepts is None else n_concepts
    good = (
        rows.ndim == 2
        and concepts.shape == areas.shape == row_of.shape == (n,)
        and all(array.dtype.kind == "i" for array in (starts, concepts, areas, row_of))
        and (starts.ndim == 1 and starts.size > 0 and starts[0] == 0 and starts[-1] == n)
        and bool((starts[1:] >= starts[:-1]).all())
        and (n == 0 or bool(concepts.min() >= 0 and concepts.max() < stop))
        and (n == 0 or bool(row_of.min() >= -1 and row_of.max() < rows.shape[0]))
    )
    if not good:
        wanted, got = "starts, concepts, areas and rows that fit each other", "others"
        raise InputError("occurring", wanted=wanted, got=got, remedy="give what ccx.kernels.concept_rows made")


def formula_shapes(masks: Any, bitmap: Any, shape: tuple[int, int], *, threads: int | None = None) -> FormulaShapes:
    """Return the shapes of formulas, given their masks uint64[F, N, n_words] and one bitmap uint64[N, n_words].

    The arrays have U = 1.

    Raises
    ------
    DTypeError, ShapeError
        If masks and bitmap are not uint64, or do not fit the grid (H, W) or each other.

    """
    areas = converted(popcount(masks, threads=threads), np.int32)
    if areas.ndim != 2:
        remedy = "give one mask per formula and sample"
        raise ShapeError("masks", wanted="uint64[F, N, n_words]", got=f"{areas.ndim + 1} axes", remedy=remedy)
    hits = converted(and_popcount(masks, bitmap, threads=threads), np.int32)
    boxes = bounding_boxes(masks, shape, threads=threads)  # which checks the padding, too
    rectangles = inscribed_rectangles(masks, shape, threads=threads)
    return FormulaShapes(areas[None], hits[None], boxes[None], rectangles[None])


def estimate_extensions(
    formulas: FormulaShapes,
    concepts: ConceptShapes,
    concept_intersections: npt.NDArray[np.int32],
    bitmap_areas: npt.NDArray[np.int32],
    n_cells: int,
    kind: Estimate,
    *,
    threads: int | None = None,
) -> tuple[IntArray, IntArray]:
    """Estimate (F op c) for all formulas, concepts and operators, for U bitmaps at once.

    Parameters
    ----------
    formulas, concepts
        Shapes of F formulas and of the concepts, over N samples.
    concept_intersections
        int32[U, R]: cells that each occurrence of a concept shares with each bitmap.
    bitmap_areas
        int32[U, N].
    n_cells
        Cells per sample, H·W.
    kind
        "mmesh", "cfh" or "areas".

    Returns
    -------
    numerators, denominators : int64[U, F, C, 3]
        The estimate is numerator / denominator; a denominator <= 0 stands for infinity. Operators in
        the order OR, AND, AND NOT.

    Notes
    -----
    The cost is F times the occurrences of concepts, not F·C·N: what an absent concept contributes depends
    on the formula alone.

    """
    given: object = kind
    if not isinstance(given, str) or kind not in get_args(Estimate):
        remedy = "see docs/heuristics.md"
        raise InputError("kind", wanted='"mmesh", "cfh" or "areas"', got=shown(kind), remedy=remedy)
    if formulas.areas.ndim != 3:
        remedy = "give what formula_shapes made"
        raise ShapeError("formulas.areas", wanted="int32[U, F, N]", got=describe(formulas.areas), remedy=remedy)
    n_units, n_formulas, n_samples = formulas.areas.shape
    n_occurrences = concepts.concepts.size
    wanted_shapes = (
        ("formulas.intersections", formulas.intersections, formulas.areas.shape),
        ("formulas.boxes", formulas.boxes, (n_units, n_formulas, n_samples, 4)),
        ("formulas.rectangles", formulas.rectangles, (n_units, n_formulas, n_samples, 4)),
        ("concepts.concepts", concepts.concepts, (n_occurrences,)),
        ("concepts.areas", concepts.areas, (n_occurrences,)),
        ("concepts.boxes", concepts.boxes, (n_occurrences, 4)),
        ("concepts.rectangles", concepts.rectangles, (n_occurrences, 4)),
        ("concept_intersections", concept_intersections, (n_units, n_occurrences)),
        ("bitmap_areas", bitmap_areas, (n_units, n_samples)),
        ("concepts.starts", concepts.starts, (n_samples + 1,)),
    )
    for argument, array, wanted in wanted_shapes:
        if array.shape != wanted:
            remedy = "use the same samples and bitmaps"
            raise ShapeError(argument, wanted=str(list(wanted)), got=describe(array), remedy=remedy)
    numerators, denominators = backend_for(formulas.areas, bitmap_areas).estimates.estimate_extensions(
        formulas, concepts, concept_intersections, bitmap_areas, n_cells, kind, check_threads(threads)
    )
    return numerators, denominators
