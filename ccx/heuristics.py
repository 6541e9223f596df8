"""The published heuristics as functions: estimates of a formula's IoU from what is known by sample.

`mmesh_heuristic`, `cfh_heuristic` and `areas_heuristic` take the arguments of the published code (La Rosa et al. 2023)
and return the estimate of one formula, rounded to 4 decimals as in that code. `extension_estimates` gives those of all
extensions of some formulas at once, unrounded. Definitions and proofs: docs/heuristics.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.checks import items, require_kind
from ccx.concepts import Concepts
from ccx.errors import InputError, ShapeError
from ccx.formula import And, Concept, Formula, Not, Operator, Or, parse
from ccx.kernels.conversion import as_array, describe
from ccx.kernels.estimates import (
    ConceptShapes,
    Estimate,
    FormulaShapes,
    concept_hits,
    concept_shapes,
    estimate_extensions,
    formula_shapes,
)
from ccx.kernels.rows import pack, popcount

__all__ = ["areas_heuristic", "cfh_heuristic", "extension_estimates", "mmesh_heuristic"]


def mmesh_heuristic(formula: Any, heuristic_info: Any, num_hits: int, max_size_mask: int) -> float:
    """Estimate the IoU of ``(L OR c)``, ``(L AND c)`` or ``(L AND NOT c)`` by areas, intersections, boxes, rectangles.

    Parameters
    ----------
    formula
        A `Formula` over the names "1".."C", its text, or any object with such a text, as the published code's
        formulas: ``((1 OR 2) AND (NOT 3))``.
    heuristic_info
        ``((unary_info, neuron_areas, unary_intersection), enneary_info)``, arrays of N samples; NumPy, torch or lists:

        - ``unary_info = (unary_areas, unary_inscribed, unary_bounding_box)``: [C, N], [C, N, 2, 2], [C, N, 2, 2], entry
          c - 1 for concept c. Rectangles are [[row0, col0], [row1, col1]], inclusive, [[0, 0], [-1, -1]] if there
          is none; boxes [[x0, y0], [x1, y1]], inclusive, all 0 if there is none.
        - ``neuron_areas`` [N]: cells of the bitmap; ``unary_intersection`` [C, N]: cells that concepts share with it.
        - ``enneary_info = (areas, inscribed, bounding_box, intersection)`` of the left part L where it is no single
          concept (None where it is): [N], [N, 2, 2], [N, 2, 2], [N]; or mappings from formulas (or
          their texts) to such arrays, for instance of a whole beam.
    num_hits
        Cells of the bitmap in all samples.
    max_size_mask
        Cells of a sample.

    Returns
    -------
    float
        Rounded to 4 decimals.

    Raises
    ------
    InputError
        (`ShapeError`, `DTypeError`) If the formula is not of such a form, or the information does not fit it.

    """
    return _heuristic(formula, heuristic_info, num_hits, max_size_mask, "mmesh")


def cfh_heuristic(formula: Any, heuristic_info: Any, num_hits: int, max_size_mask: int) -> float:
    """Estimate the IoU from areas and intersections alone; arguments as for `mmesh_heuristic`.

    Infinite where the published code divides by 0 or gets a negative number.
    """
    return _heuristic(formula, heuristic_info, num_hits, max_size_mask, "cfh")


def areas_heuristic(formula: Any, heuristic_info: Any, num_hits: int, max_size_mask: int) -> float:
    """Estimate the IoU from areas alone; arguments as for `mmesh_heuristic`.

    Infinite where the published code divides by 0 or gets a negative number.
    """
    return _heuristic(formula, heuristic_info, num_hits, max_size_mask, "areas")


def extension_estimates(
    formulas: Iterable[Formula | str],
    concepts: Concepts,
    bitmap: Any,
    heuristic: Estimate = "mmesh",
    *,
    threads: int | None = None,
) -> npt.NDArray[np.float64]:
    """Estimate the IoUs of all extensions of F formulas by all concepts and operators.

    Parameters
    ----------
    formulas
        F formulas over the names of the concepts.
    concepts
        The annotated data set of N samples, C concepts.
    bitmap
        bool[N, H, W]; cells that are not valid count nowhere.
    heuristic
        "mmesh", "cfh" or "areas".
    threads
        Processors to use; None = all available. Results do not depend on it.

    Returns
    -------
    float64[F, C, 3]
        Upper bounds of the IoU of (formula OR concept), (formula AND concept), (formula AND NOT concept); infinity
        where nothing is known.

    Raises
    ------
    InputError
        (`ShapeError`, `DTypeError`, `MemoryBudgetError`) If a formula or the bitmap does not fit the concepts, or the
        masks of the concepts do not fit into memory.

    """
    require_kind("concepts", concepts, Concepts, "ccx.Concepts", "build them from masks or label maps")
    cells = as_array(bitmap, "bitmap")
    wanted = (concepts.n_samples, *concepts.shape)
    if cells.dtype != np.bool_ or cells.shape != wanted:
        remedy = "bring it to the grid of the concepts"
        raise ShapeError("bitmap", wanted=f"bool{list(wanted)}", got=describe(cells), remedy=remedy)
    n_cells = concepts.shape[0] * concepts.shape[1]
    valid = concepts.atoms.cell_atoms < np.diff(concepts.atoms.sample_starts)[:, None]
    rows = pack(cells.reshape(-1, n_cells) & valid, threads=threads)
    masks = [
        concepts.mask(formula, packed=True, threads=threads) for formula in items("formulas", formulas, "formulas")
    ]
    occurring = concepts.packed_rows(threads=threads)
    numerators, denominators = estimate_extensions(
        formula_shapes(np.array(masks, np.uint64).reshape(-1, *rows.shape), rows, concepts.shape, threads=threads),
        concept_shapes(occurring, concepts.shape, concepts.n_concepts, threads=threads),
        concept_hits(occurring, rows, threads=threads)[None],
        popcount(rows, threads=threads)[None].astype(np.int32),
        n_cells,
        heuristic,
        threads=threads,
    )
    return _ratios(numerators[0], denominators[0])


def _heuristic(formula: Any, heuristic_info: Any, num_hits: int, max_size_mask: int, kind: Estimate) -> float:
    left, operator, concept = _parts(formula)
    try:
        (unary_info, neuron_areas, unary_intersection), enneary_info = heuristic_info
        unary = (*unary_info, unary_intersection)
        _, _, _, _ = unary
    except (TypeError, ValueError):
        wanted = "((unary_info, neuron_areas, unary_intersection), enneary_info)"
        remedy = "see mmesh_heuristic"
        raise InputError("heuristic_info", wanted=wanted, got=f"{heuristic_info!r:.60}", remedy=remedy) from None
    hits = _integers(neuron_areas, "neuron_areas")
    if hits.sum() != num_hits:
        remedy = "give the sum over all samples"
        raise InputError("num_hits", wanted=f"{hits.sum()}, the sum of neuron_areas", got=repr(num_hits), remedy=remedy)
    ours = _shapes(_of_concept(unary, concept), hits.shape)
    if isinstance(left, Concept):
        theirs = _shapes(_of_concept(unary, left), hits.shape)
    else:
        theirs = _shapes(_of_formula(enneary_info, left), hits.shape)
    # The concept as the only one of a data set, with an entry in each sample where it occurs.
    present = ours.areas[0, 0] > 0
    shapes = ConceptShapes(
        starts=np.concatenate(([0], np.cumsum(present))),
        concepts=np.zeros(int(present.sum()), np.int32),
        areas=ours.areas[0, 0][present],
        boxes=ours.boxes[0, 0][present],
        rectangles=ours.rectangles[0, 0][present],
        full_only=np.array([np.isin(ours.areas, (0, max_size_mask)).all()]),
    )
    numerators, denominators = estimate_extensions(
        theirs, shapes, ours.intersections[0][:, present], hits[None], max_size_mask, kind
    )
    return round(float(_ratios(numerators, denominators)[0, 0, 0, operator]), 4)


def _ratios(numerators: npt.NDArray[np.int64], denominators: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    ratios: npt.NDArray[np.float64] = np.full(numerators.shape, np.inf)
    return np.divide(numerators, denominators, out=ratios, where=denominators > 0)


def _parts(formula: Any) -> tuple[Formula, Operator, Concept]:
    """Return L, the operator and c of ``(L op c)``."""
    if hasattr(formula, "dtype"):  # of others, such as the published formulas, the text is parsed
        raise InputError("formula", wanted="a formula or its text", got=type(formula).__name__, remedy="see ccx.parse")
    tree = formula if isinstance(formula, Formula) else parse(str(formula))
    if isinstance(tree, Or) and isinstance(tree.right, Concept):
        return tree.left, Operator.OR, tree.right
    if isinstance(tree, And) and isinstance(tree.right, Concept):
        return tree.left, Operator.AND, tree.right
    if isinstance(tree, And) and isinstance(tree.right, Not) and isinstance(tree.right.operand, Concept):
        return tree.left, Operator.AND_NOT, tree.right.operand
    remedy = "single concepts have their exact IoU"
    raise InputError("formula", wanted="(L OR c), (L AND c) or (L AND NOT c)", got=f"{tree!s:.60}", remedy=remedy)


def _of_concept(unary: tuple[Any, ...], concept: Concept) -> list[Any]:
    n_concepts = len(unary[0])
    if not (concept.name.isdecimal() and 1 <= int(concept.name) <= n_concepts):
        remedy = "name concepts by their numbers"
        raise InputError("formula", wanted=f"concepts 1 to {n_concepts}", got=f"{concept.name!r:.40}", remedy=remedy)
    return [part[int(concept.name) - 1] for part in unary]


def _of_formula(enneary_info: Any, left: Formula) -> list[Any]:
    """Return areas, inscribed rectangle, bounding box and intersection of the left part."""
    found = []
    for part in enneary_info if isinstance(enneary_info, (tuple, list)) else ():
        if isinstance(part, Mapping):
            known = {str(key if isinstance(key, Formula) else parse(str(key))): value for key, value in part.items()}
            if str(left) not in known:
                remedy = "add its information"
                raise InputError("enneary_info", wanted=f"an entry of {left!s:.60}", got="none", remedy=remedy)
            found.append(known[str(left)])
        else:
            found.append(part)
    if len(found) != 4:
        wanted = f"(areas, inscribed, bounding_box, intersection) of {left!s:.60}"
        raise InputError("enneary_info", wanted=wanted, got=f"{enneary_info!r:.60}", remedy="see mmesh_heuristic")
    return found


def _shapes(parts: list[Any], shape: tuple[int, ...]) -> FormulaShapes:
    """Return areas [N], rectangles and boxes [N, 2, 2], intersections [N] of one mask in the form of the kernels."""
    names = ("areas", "inscribed", "bounding_box", "intersection")
    areas, inscribed, boxes, hits = (_integers(part, name) for part, name in zip(parts, names, strict=True))
    checks = ((areas, shape), (inscribed, (*shape, 2, 2)), (boxes, (*shape, 2, 2)), (hits, shape))
    for name, (array, wanted) in zip(names, checks, strict=True):
        if array.shape != wanted:
            remedy = "give one entry per sample"
            raise ShapeError(_argument(name), wanted=str(list(wanted)), got=describe(array), remedy=remedy)
    after_last = np.array([[0, 0], [1, 1]], np.int32)
    rectangles = (inscribed + after_last).reshape(-1, 4)
    boxes = (boxes[:, :, ::-1] + after_last).reshape(-1, 4)  # x and y to row and column
    return FormulaShapes(areas[None, None], hits[None, None], boxes[None, None], rectangles[None, None])


def _integers(value: Any, name: str) -> npt.NDArray[np.int32]:
    array: npt.NDArray[Any] = np.asarray(as_array(value, _argument(name)))
    whole = array.astype(np.int32)
    if not np.array_equal(whole, array):
        raise InputError(_argument(name), wanted="integers", got=describe(array), remedy="give numbers of cells")
    return whole


def _argument(name: str) -> str:
    return f"heuristic_info ({name})"
