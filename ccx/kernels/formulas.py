"""Left-deep formulas as arrays: their counts over atoms, and the best extensions in tie order.

F formulas of one length are ``concepts int32[F, length]`` (indices from 0) and ``operators
uint8[F, length - 1]``: 0 OR, 1 AND, 2 AND NOT; formula f is ((c0 op0 c1) op1 c2) …

Counts are exact integers: ``weights`` are numbers of cells by atom, ``atoms.cells`` or histograms of
bitmaps, and a formula's count is the sum over the atoms that satisfy it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.errors import DTypeError, InputError, ShapeError
from ccx.jobs import check_threads
from ccx.kernels import cpu
from ccx.kernels.atoms import Atoms, check_weights
from ccx.kernels.backend import backend_for
from ccx.kernels.conversion import as_array, describe, require_host
from ccx.typing import IntArray

__all__ = ["Extensions", "best_extensions", "best_placed", "best_singles", "conjunction_counts", "formula_counts"]


class Extensions(NamedTuple):
    """k formulas of length n in canonical form, best first, with their counts.

    `concepts` int32[k, n], `operators` uint8[k, n - 1], `intersections` |F and B| int64[k], `sizes`
    |F| int64[k]; `evaluated` is the number of candidates that were counted to find them.
    """

    concepts: npt.NDArray[np.int32]
    operators: npt.NDArray[np.uint8]
    intersections: IntArray
    sizes: IntArray
    evaluated: int


def formula_counts(
    atoms: Atoms, weights: Any, concepts: Any, operators: Any, *, threads: int | None = None
) -> IntArray:
    """Count many formulas at once: weights int64[M, G] -> int64[M, F].

    Raises
    ------
    ShapeError, DTypeError
        If weights, concepts and operators do not fit the atoms and each other.
    InputError
        If a concept or an operator is out of range.

    """
    arrays = _checked(atoms, weights, concepts, operators)
    counts: IntArray = backend_for(atoms.cells, arrays[0]).formulas.formula_counts(
        atoms, *arrays, check_threads(threads)
    )
    return counts


def conjunction_counts(
    atoms: Atoms, weights: Any, concepts: Any, operators: Any, *, threads: int | None = None
) -> IntArray:
    """Count each formula AND each concept: weights int64[M, G] -> int64[M, F, C].

    With |F| and |c| these counts give all three extensions of F by c, by inclusion and exclusion.
    Raises what `formula_counts` raises.

    Operations: for each formula, the atoms that satisfy it times the concepts that they hold.
    """
    arrays = _checked(atoms, weights, concepts, operators)
    counts: IntArray = backend_for(atoms.cells, arrays[0]).formulas.conjunction_counts(
        atoms, *arrays, check_threads(threads)
    )
    return counts


def best_singles(
    intersections: IntArray, sizes: IntArray, bitmap_cells: int, keep: int, allowed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int32]:
    """Choose the `keep` best concepts by IoU: |c and B| int64[C], |c| int64[C] -> int32[k].

    In tie order (higher IoU, then smaller index); concepts that do not meet the bitmap never enter.
    IoUs are compared as fractions of integers, never as floats. Raises what `best_extensions` raises.
    """
    _check_choice(keep, allowed)
    _check_counts((allowed.size,), intersections=intersections, sizes=sizes)
    chosen: npt.NDArray[np.int32] = cpu.formulas.best_singles(
        intersections, sizes, allowed, bitmap_cells, min(keep, allowed.size)
    )
    return chosen


def best_extensions(
    parents: Extensions,
    intersections: IntArray,
    sizes: IntArray,
    joint_intersections: IntArray,
    joint_sizes: IntArray,
    bitmap_cells: int,
    keep: int,
    allowed: npt.NDArray[np.bool_],
) -> Extensions:
    """Choose the `keep` best of all (F op c), F in `parents`, c not in F and allowed, op in OR, AND, AND NOT.

    |c and B| int64[C], |c| int64[C], |F and c and B| int64[F, C], |F and c| int64[F, C], allowed
    bool[C]. Logically equal candidates count once; candidates that do not meet the bitmap never enter.

    The order is total (docs/search.md): higher IoU, compared by exact cross multiplication in 128
    bits, then fewer NOTs, then the smaller canonical sequence of concepts, then of operators.

    Raises
    ------
    ShapeError, DTypeError
        If the counts do not fit `allowed` and each other.
    InputError
        If `keep` is no integer >= 1.

    """
    _check_choice(keep, allowed)
    _check_parents(parents)
    joint_shape = (parents.concepts.shape[0], allowed.size)
    _check_counts((allowed.size,), intersections=intersections, sizes=sizes)
    _check_counts(joint_shape, joint_intersections=joint_intersections, joint_sizes=joint_sizes)
    keep = min(keep, 3 * math.prod(joint_shape))  # no more places than candidates
    return Extensions(
        *cpu.formulas.best_extensions(
            parents.concepts, parents.operators, parents.intersections, parents.sizes,
            intersections, sizes, joint_intersections, joint_sizes, allowed, bitmap_cells, keep,
        )
    )  # fmt: skip


def best_placed(
    parents: Extensions, candidates: IntArray, places: IntArray, n_concepts: int, keep: int
) -> tuple[IntArray, npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Choose the `keep` best of some extensions whose scores were compared before, logically equal ones once.

    candidates int64[m] are numbers (f * n_concepts + c) * 3 + operator of extensions (F op c), F the parent f, c not
    in F; places int64[m] order their scores, the lower, the better. Equal ones are ordered as in `best_extensions`.
    Returns (chosen int64[k], indices of candidates, best first; concepts int32[k, n + 1]; operators uint8[k, n]).

    Raises
    ------
    ShapeError, DTypeError
        If candidates and places are not int64 arrays of one length.
    InputError
        If `keep` is no integer >= 1, or a candidate is out of range.

    """
    _check_parents(parents)
    _check_counts((candidates.size,), candidates=candidates, places=places)
    stop = 3 * n_concepts * parents.concepts.shape[0]
    if candidates.size and not (candidates.min() >= 0 and candidates.max() < stop):
        got = f"values from {candidates.min()} to {candidates.max()}"
        raise InputError("candidates", wanted=f"values from 0 to {stop - 1}", got=got, remedy="number parents from 0")
    if keep < 1:
        raise InputError("keep", wanted="an integer >= 1", got=repr(keep), remedy="keep one at least")
    chosen: tuple[IntArray, npt.NDArray[np.int32], npt.NDArray[np.uint8]] = cpu.formulas.best_placed(
        parents.concepts, parents.operators, candidates, places, n_concepts, min(keep, max(candidates.size, 1))
    )
    return chosen


def _check_choice(keep: int, allowed: npt.NDArray[np.bool_]) -> None:
    if keep < 1:
        raise InputError("keep", wanted="an integer >= 1", got=repr(keep), remedy="keep one at least")
    if allowed.dtype != np.bool_ or allowed.ndim != 1:
        remedy = "mark the concepts that may be used"
        raise DTypeError("allowed", wanted="bool[C]", got=describe(allowed), remedy=remedy)


def _check_parents(parents: Extensions) -> None:
    concepts, operators, intersections, sizes, _ = parents
    n, length = concepts.shape if concepts.ndim == 2 else (0, 0)
    if concepts.dtype != np.int32 or length < 1:
        remedy = "give what best_singles or best_extensions found"
        raise ShapeError("parents.concepts", wanted="int32[F, length >= 1]", got=describe(concepts), remedy=remedy)
    if operators.dtype != np.uint8 or operators.shape != (n, length - 1):
        wanted, remedy = f"uint8[{n}, {length - 1}]", "one operator less than concepts"
        raise ShapeError("parents.operators", wanted=wanted, got=describe(operators), remedy=remedy)
    _check_counts((n,), intersections=intersections, sizes=sizes)


def _check_counts(shape: tuple[int, ...], **counts: IntArray) -> None:
    for argument, array in counts.items():
        wanted = f"int64{list(shape)}"
        if array.dtype != np.int64:
            raise DTypeError(argument, wanted=wanted, got=describe(array), remedy="use the counts of ccx.kernels")
        if array.shape != shape:
            raise ShapeError(argument, wanted=wanted, got=describe(array), remedy="give one count per allowed concept")


def _checked(atoms: Atoms, weights: Any, concepts: Any, operators: Any) -> tuple[Any, Any, Any]:
    weights = check_weights(atoms, weights, 2)
    concepts = as_array(concepts, "concepts")
    operators = as_array(operators, "operators")
    if concepts.ndim != 2 or concepts.shape[1] < 1:
        remedy = "give one row per formula"
        raise ShapeError("concepts", wanted="int32[F, length >= 1]", got=describe(concepts), remedy=remedy)
    n, length = concepts.shape
    if operators.shape != (n, length - 1):
        remedy = "one operator less than concepts"
        raise ShapeError("operators", wanted=f"uint8[{n}, {length - 1}]", got=describe(operators), remedy=remedy)
    for argument, values, stop in (("concepts", concepts, atoms.n_concepts), ("operators", operators, 3)):
        require_host(values, argument, "formulas")
        if values.size and values.dtype.kind not in "iu":
            remedy = "pass integers, concepts counted from 0"
            raise DTypeError(argument, wanted="integers", got=describe(values), remedy=remedy)
        if values.size and not (values.min() >= 0 and values.max() < stop):
            got = f"values from {values.min()} to {values.max()}"
            raise InputError(argument, wanted=f"values from 0 to {stop - 1}", got=got, remedy="indices start at 0")
    return weights, concepts.astype(np.int32, copy=False), operators.astype(np.uint8, copy=False)
