"""The best single concepts and the best extensions, by any score.

For IoU the kernels compare fractions as they go. Any other score is first approximated for all candidates at once;
those that rounding leaves in doubt are numbered by their exact ranks, and the kernel orders equal ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ccx.formula import Operator
from ccx.kernels import formulas as kernels
from ccx.kernels.formulas import Extensions
from ccx.scores import SCORES, SLACK
from ccx.search.found import Objective
from ccx.typing import BoolArray, IntArray


def best_singles(
    objective: Objective, intersections: IntArray, sizes: IntArray, keep: int, usable: BoolArray
) -> npt.NDArray[np.int32]:
    """Choose the `keep` best concepts, best first: |c and B| int64[C], |c| int64[C] -> int32[k]."""
    if objective.scoring is SCORES["iou"]:
        return kernels.best_singles(intersections, sizes, objective.bitmap_cells, keep, usable)
    met = np.flatnonzero(usable & (intersections > 0))
    contenders, places = _contenders(objective, intersections[met], sizes[met], keep)
    chosen: npt.NDArray[np.int32] = met[contenders[np.argsort(places, kind="stable")[:keep]]].astype(np.int32)
    return chosen


def best_extenders(
    objective: Objective, intersections: IntArray, sizes: IntArray, n: int, usable: BoolArray
) -> BoolArray:
    """Mark `n` concepts that extend formulas: the best by themselves, then those without a score, in their order."""
    scored = best_singles(objective, intersections, sizes, n, usable)
    rest = usable.copy()
    rest[scored] = False
    chosen = np.zeros_like(usable)
    chosen[np.concatenate([scored, np.flatnonzero(rest)])[:n]] = True
    return chosen


def best_extensions(  # noqa: PLR0913 - those of the kernel, and what it lacks
    objective: Objective,
    parents: Extensions,
    intersections: IntArray,
    sizes: IntArray,
    joint_intersections: IntArray,
    joint_sizes: IntArray,
    keep: int,
    usable: BoolArray,
    *,
    admitted: bool = False,
) -> Extensions:
    """Choose the `keep` best extensions of distinct parents, as `ccx.kernels.best_extensions` does for IoU.

    With `admitted` only those that the objective admits; ordered by IoU, these are the first ones anyway.
    """
    if objective.scoring is SCORES["iou"]:
        return kernels.best_extensions(
            parents, intersections, sizes, joint_intersections, joint_sizes, objective.bitmap_cells, keep, usable
        )
    n_formulas = len(parents.concepts)
    free = np.repeat(usable[None], n_formulas, axis=0)
    free[np.arange(n_formulas)[:, None], parents.concepts] = False
    hits = of_operators(parents.intersections[:, None], intersections, joint_intersections)
    cells = of_operators(parents.sizes[:, None], sizes, joint_sizes)
    good = free[:, :, None] & (hits > 0)
    met = np.flatnonzero(good & objective.admits(hits, cells) if admitted else good)
    # A formula is met at most once for each concept that may have been its last: what that extends is determined.
    hits, cells = hits.ravel()[met], cells.ravel()[met]
    return best_of(objective, parents, met, hits, cells, usable.size, keep)._replace(
        evaluated=len(Operator) * int(free.sum())
    )


def best_of(
    objective: Objective,
    parents: Extensions,
    candidates: IntArray,
    hits: IntArray,
    cells: IntArray,
    n_concepts: int,
    keep: int,
) -> Extensions:
    """Choose the `keep` best of some extensions of canonical parents.

    candidates int64[m] are numbers (f * n_concepts + c) * 3 + operator, hits > 0 and cells int64[m] their |F and B|
    and |F|. No formula may be a candidate more often than it has concepts.
    """
    n_wanted = keep * (parents.concepts.shape[1] + 1)
    contenders, places = _contenders(objective, hits, cells, n_wanted)
    chosen, concepts, operators = kernels.best_placed(parents, candidates[contenders], places, n_concepts, keep)
    best = contenders[chosen]
    return Extensions(concepts, operators, hits[best], cells[best], candidates.size)


def of_operators(formula: IntArray | int, concepts: IntArray, joint: IntArray) -> IntArray:
    """Return the counts int64[..., C, 3] of OR, AND and AND NOT, by inclusion and exclusion."""
    return np.stack([formula + concepts - joint, joint, formula - joint], axis=-1)


def _contenders(objective: Objective, hits: IntArray, cells: IntArray, n_wanted: int) -> tuple[IntArray, IntArray]:
    """Return all candidates that may be among the `n_wanted` best, ascending, and the places of their scores.

    No candidate with a score of 0 or less is among them.
    """
    counts = objective.bitmap_cells, objective.total
    ranks = objective.scoring.approximate(hits, cells, *counts)
    contenders = np.flatnonzero(ranks > 0)
    if contenders.size > n_wanted:
        ranks = ranks[contenders]
        least = np.partition(ranks, -n_wanted)[-n_wanted]
        contenders = contenders[ranks >= least * (1 - 4 * SLACK)]
    # Many candidates have the same two counts; a complex number holds both.
    distinct, which = np.unique(hits[contenders] + 1j * cells[contenders], return_inverse=True)
    places = objective.scoring.places(distinct.real.astype(np.int64), distinct.imag.astype(np.int64), *counts)
    return contenders, places[which]
