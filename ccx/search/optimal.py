"""The proven optimum over all left-deep formulas (docs/optimal.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.checks import shown
from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.kernels.atoms import total_counts
from ccx.kernels.places import to_host
from ccx.options import SearchOptions
from ccx.search.beam import JointCounts, beam_search
from ccx.search.bounds import Bounds
from ccx.search.branching import Longer
from ccx.search.found import Found, Objective, SearchResult
from ccx.search.incumbents import Incumbents
from ccx.search.limits import Limit
from ccx.search.planes import Cover
from ccx.search.protocol import Search
from ccx.search.shorter import SHORT, Shorter
from ccx.typing import IntArray

MAX_CONCEPTS = 4_096
MAX_CONCEPTS_COUNTED = 200  # where no bound spares a formula: 34 million pairs and one more, about a minute
MAX_CONCEPTS_LONGER = 8  # the same for formulas of four and more
_ROUNDED_UP = 1 + 1e-14


def optimal_search(
    concepts: Concepts,
    counts: IntArray,
    options: SearchOptions,
    allowed: npt.NDArray[np.bool_] | None = None,
    *,
    threads: int | None = None,
) -> SearchResult:
    """Find the best formulas of all left-deep ones of distinct concepts, with proof.

    Parameters and raises as for `beam_search`; a histogram on a GPU is brought down once, and searched here. The result
    precedes every other formula in the tie order, among those of an IoU of at least `min_iou`.

    The beam's answer is the first incumbent. Of the formulas of up to three concepts that may still reach it, one
    concept gains a third; for each such concept, the formulas that bounds leave are counted exactly (`Shorter`).
    Formulas of four concepts and more follow by branch and bound (`Longer`). Where one of the limits of `options` is
    reached, `optimal` is False and `upper_bound` is what is proven of all formulas.

    Raises
    ------
    InputError
        If `candidates` are fewer than the concepts that may occur, or these are more than a proof can deal with.

    """
    limit = Limit(options.evaluation_limit, options.time_limit)
    usable = np.ones(concepts.n_concepts, np.bool_) if allowed is None else allowed
    check_provable(options, int(usable.sum()))
    atoms, counts = concepts.atoms, to_host(counts)
    objective = Objective.of(options, int(total_counts(atoms, counts)), concepts.n_cells)
    joint_counts = JointCounts(concepts, counts, threads)
    start = beam_search(concepts, counts, options, usable, threads=threads, joint_counts=joint_counts)
    limit.evaluations += start.visited
    best = Incumbents(start, objective, options.top)
    longest = min(options.length, int(usable.sum()))
    visited, proven, upper = start.visited, True, None
    if longest > 1 and bool((joint_counts.intersections[usable] > 0).any()):
        cover = Cover(objective)
        bounds = Bounds(atoms, counts, usable, cover, best)
        if limit.is_given:
            bounds.begin(range(2, longest + 1))
        shorter = Shorter(concepts, joint_counts, usable, cover, best, limit)
        proven = _prove(shorter, range(2, min(longest, SHORT) + 1), bounds)
        visited += shorter.counted
        if proven and longest > SHORT:
            longer = Longer(atoms, counts, shorter, cover, best, bounds, usable, limit)
            if limit.is_given:
                bounds.begin(range(SHORT + 1, longest + 1))
            proven = _prove(longer, range(SHORT + 1, longest + 1), bounds)
            visited += longer.counted
        upper = bounds.upper_rank
    return SearchResult(
        best.found,
        visited,
        start.expanded,
        evaluations=limit.evaluations,
        upper_bound=_upper_bound(objective, best.found, proven, upper),
        optimal=proven,
        met=best.met,
    )


class OptimalSearch(Search):
    """`optimal_search`, as `explain` runs it."""

    can_be_stopped = True
    nothing = SearchResult([], upper_bound=0.0, optimal=True)  # a proof that there is no formula

    def check(self, permutations: int) -> None:
        """Raise `InputError` where the options allow no proof; how many concepts may occur is known later."""
        super().check(permutations)
        check_provable(self.options, n_concepts=0)
        if permutations and self.options.time_limit is not None:
            # Exchanged samples would get other seconds than the true ones, and p would mean nothing.
            wanted, remedy = "None beside permutations", "use evaluation_limit, which is the same for every search"
            raise InputError("time_limit", wanted=wanted, got=shown(self.options.time_limit), remedy=remedy)

    def memory(self, n_concepts: int) -> int:
        """Return the bytes of a table of what each two concepts share."""
        n_bytes: int = 8 * min(n_concepts, MAX_CONCEPTS) ** 2
        return n_bytes

    def prepare(self, concepts: Concepts, allowed: npt.NDArray[np.bool_], threads: int) -> None:
        """Take the concepts; raise `InputError` where they are too many."""
        check_provable(self.options, int(allowed.sum()))
        super().prepare(concepts, allowed, threads)

    def __call__(self, counts: IntArray, bitmap: Callable[[], Any]) -> SearchResult:  # noqa: ARG002 (counts are enough)
        """Search one bitmap."""
        return optimal_search(self.concepts, counts, self.options, self.allowed, threads=1)


def _prove(search: Shorter | Longer, lengths: Iterable[int], bounds: Bounds) -> bool:
    """Prove one length after the other, until a limit is reached; return whether it was not."""
    for length in lengths:
        if not search.prove(length):
            return False
        bounds.close(length)
    return True


def _upper_bound(objective: Objective, found: list[Found], proven: bool, upper: Fraction | None) -> float | None:
    """Return what no penalised score exceeds, in floating point; None where nothing can be said."""
    score = objective.score(found[0]) if found else 0.0
    if proven:
        return score
    if upper is None:
        return None
    bound: float = float(upper) ** (1 / objective.scoring.power)
    return max(score, bound * _ROUNDED_UP)


def check_provable(options: SearchOptions, n_concepts: int) -> None:
    """Raise `InputError` where `optimal_search` could not prove what it is asked for."""
    if options.candidates is not None and options.candidates < n_concepts:
        wanted, remedy = f"None, or all {n_concepts} concepts, for a proof", "leave it out, or restrict them with only"
        raise InputError("candidates", wanted=wanted, got=str(options.candidates), remedy=remedy)
    if not options.scoring.monotone and n_concepts > MAX_CONCEPTS_COUNTED and options.length == SHORT:
        wanted = f"at most {MAX_CONCEPTS_COUNTED} for a score that is not declared monotone"
        remedy = "declare it, restrict concepts with only or categories, or use length=2"
        raise InputError("concepts", wanted=wanted, got=str(n_concepts), remedy=remedy)
    if not options.scoring.monotone and n_concepts > MAX_CONCEPTS_LONGER and options.length > SHORT:
        wanted = f"at most {MAX_CONCEPTS_LONGER} for a score that is not declared monotone and length > {SHORT}"
        remedy = f"declare it, restrict concepts with only or categories, or use length={SHORT}"
        raise InputError("concepts", wanted=wanted, got=str(n_concepts), remedy=remedy)
    if n_concepts > MAX_CONCEPTS:
        remedy = "restrict them with only or categories"
        raise InputError("concepts", wanted=f"at most {MAX_CONCEPTS} for a proof", got=str(n_concepts), remedy=remedy)
