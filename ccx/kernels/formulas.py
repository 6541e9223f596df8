"""Left-deep formulas as arrays: their counts over atoms, and the best extensions in tie order.

F formulas of one length are ``concepts int32[F, length]`` (indices from 0) and ``operators
uint8[F, length - 1]``: 0 OR, 1 AND, 2 AND NOT; formula f is ((c0 op0 c1) op1 c2) …

Counts are exact integers: ``weights`` are numbers of cells by atom, ``atoms.cells`` or histograms of
bitmaps, and a formula's count is the sum over the atoms that satisfy it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.errors import InputError, ShapeError
from ccx.kernels._dispatch import as_array, backend_for, check_threads, describe
from ccx.kernels.atoms import Atoms

__all__ = ["Extensions", "best_extensions", "best_singles", "conjunction_counts", "formula_counts"]

IntArray = npt.NDArray[np.int64]


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
    ShapeError
        If weights, concepts and operators do not fit the atoms and each other.
    InputError
        If a concept or an operator is out of range.

    """
    arrays = _checked(atoms, weights, concepts, operators)
    counts: IntArray = backend_for(atoms.cells).formulas.formula_counts(atoms, *arrays, check_threads(threads))
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
    counts: IntArray = backend_for(atoms.cells).formulas.conjunction_counts(atoms, *arrays, check_threads(threads))
    return counts


def best_singles(
    intersections: IntArray, sizes: IntArray, bitmap_cells: int, keep: int, allowed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int32]:
    """Choose the `keep` best concepts by IoU: |c and B| int64[C], |c| int64[C] -> int32[k].

    In tie order (higher IoU, then smaller index); concepts that do not meet the bitmap never enter.
    IoUs are compared as fractions of integers, never as floats.
    """
    from ccx.kernels.cpu import formulas  # noqa: PLC0415 - the choice is host work for every backend

    chosen: npt.NDArray[np.int32] = formulas.best_singles(intersections, sizes, allowed, bitmap_cells, keep)
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
    """
    from ccx.kernels.cpu import formulas  # noqa: PLC0415 - the choice is host work for every backend

    return Extensions(
        *formulas.best_extensions(
            parents.concepts, parents.operators, parents.intersections, parents.sizes,
            intersections, sizes, joint_intersections, joint_sizes, allowed, bitmap_cells, keep,
        )
    )  # fmt: skip


def _checked(atoms: Atoms, weights: Any, concepts: Any, operators: Any) -> tuple[Any, Any, Any]:
    weights = as_array(weights, "weights")
    concepts = as_array(concepts, "concepts")
    operators = as_array(operators, "operators")
    if weights.dtype != np.int64 or weights.ndim != 2 or weights.shape[1] != atoms.n_atoms:
        remedy = "use atoms.cells[None] or a histogram of the same atoms"
        raise ShapeError("weights", wanted=f"int64[M, {atoms.n_atoms}]", got=describe(weights), remedy=remedy)
    if concepts.ndim != 2 or concepts.shape[1] < 1:
        remedy = "give one row a formula"
        raise ShapeError("concepts", wanted="int32[F, length >= 1]", got=describe(concepts), remedy=remedy)
    n, length = concepts.shape
    if operators.shape != (n, length - 1):
        remedy = "one operator less than concepts"
        raise ShapeError("operators", wanted=f"uint8[{n}, {length - 1}]", got=describe(operators), remedy=remedy)
    for argument, values, stop in (("concepts", concepts, atoms.n_concepts), ("operators", operators, 3)):
        if values.size and not (values.min() >= 0 and values.max() < stop):
            got = f"values from {values.min()} to {values.max()}"
            raise InputError(argument, wanted=f"values from 0 to {stop - 1}", got=got, remedy="indices start at 0")
    return weights, concepts.astype(np.int32, copy=False), operators.astype(np.uint8, copy=False)
