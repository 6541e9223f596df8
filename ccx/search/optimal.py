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
from ccx.formula import Operator
from ccx.kernels import concept_pairs as kernels
from ccx.kernels.atoms import concept_counts, pair_counts, total_counts
from ccx.kernels.formulas import Extensions
from ccx.kernels.places import to_host
from ccx.options import SearchOptions
from ccx.search.beam import beam_search, found_of
from ccx.search.bounds import Bounds
from ccx.search.branching import Longer
from ccx.search.choosing import best_of, of_operators
from ccx.search.found import Found, Objective, SearchResult
from ccx.search.incumbents import Incumbents
from ccx.search.limits import Limit
from ccx.search.planes import Cover, Plane, Threshold
from ccx.search.protocol import Search
from ccx.typing import IntArray

PAIRED_LENGTH = 3  # so long formulas are decided by what pairs of concepts share
MAX_CONCEPTS = 4_096
MAX_CONCEPTS_COUNTED = 200  # where no bound spares a formula: 34 million pairs and one more, about a minute
MAX_CONCEPTS_LONGER = 8  # the same for formulas of four and more
_ROUNDED_UP = 1 + 1e-14
_MANY = 20_000  # pairs, to count whose extensions takes longer than to bound them again
_FEW = 2_000  # pairs, below which a second condition spares less than its matrices cost
_GROUP = 256  # pairs whose extensions are counted at a time
_STEP = 10_000_000  # bounds at most between two looks at a limit


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

    The beam's answer is the first incumbent. Bounds from what each two concepts share leave a few pairs (a op b)
    of which an extension may still reach it; those extensions are counted exactly. Formulas of four concepts and more
    follow by branch and bound (`Longer`). Where one of the limits of `options` is reached, `optimal` is False and
    `upper_bound` is what is proven of all formulas.

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
    start = beam_search(concepts, counts, options, usable, threads=threads)
    limit.evaluations += start.visited
    best = Incumbents(start, objective, options.top)
    longest = min(options.length, int(usable.sum()))
    visited, proven, upper = start.visited, True, None
    if longest > 1 and bool((concept_counts(atoms, counts)[usable] > 0).any()):
        cover = Cover(objective)
        bounds = Bounds(atoms, counts, usable, cover, best)
        if limit.is_given:
            bounds.begin(range(2, longest + 1))
        shorter = Shorter(concepts, counts, usable, cover, best, limit, threads)
        proven = _prove(shorter, range(2, min(longest, PAIRED_LENGTH) + 1), bounds)
        visited += shorter.counted
        if proven and longest > PAIRED_LENGTH:
            hits = shorter.hits()
            del shorter  # its matrices' room is needed
            longer = Longer(atoms, counts, hits, cover, best, bounds, usable, limit)
            if limit.is_given:
                bounds.begin(range(PAIRED_LENGTH + 1, longest + 1))
            proven = _prove(longer, range(PAIRED_LENGTH + 1, longest + 1), bounds)
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

    nothing = SearchResult([], upper_bound=0.0, optimal=True)  # a proof that there is no formula

    def check(self, permutations: int) -> None:
        """Raise `InputError` where the options allow no proof; how many concepts may occur is known later."""
        self.refuse_published()
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


class Shorter:
    """The search of formulas of two and three concepts; `counted` is how many reached a plane and were counted."""

    def __init__(
        self,
        concepts: Concepts,
        counts: IntArray,
        usable: npt.NDArray[np.bool_],
        cover: Cover,
        best: Incumbents,
        limit: Limit,
        threads: int | None,
    ) -> None:
        self._atoms = concepts.atoms
        self._counts, self._usable, self._threads = counts, usable, threads
        self._cover, self._best, self._limit = cover, best, limit
        self._shared: Any = None
        self._made: tuple[int, int] | None = None  # q and p of the pairs at hand
        self._pairs: kernels.Pairs | None = None
        self._admitted: IntArray | None = None
        self.counted = 0

    def prove(self, length: int) -> bool:
        """Offer what precedes the best among the formulas of a length; return whether that came to an end.

        All shorter formulas have been offered before.
        """
        return self._prove_pairs() if length == 2 else self._prove_triples()

    def hits(self) -> Any:
        """Return the `pair_counts` of the histogram."""
        if self._shared is None:
            self._shared = pair_counts(self._atoms, self._counts, threads=self._threads)
        return self._shared

    def _pairs_of(self, plane: Plane) -> kernels.Pairs:
        if self._pairs is None or (plane.q, plane.p) != self._made:
            self._pairs = None  # its room is needed
            self._made = plane.q, plane.p
            self._pairs = kernels.pairs_of(
                self._atoms, self._counts, self.hits(), *self._made, self._usable, self._threads
            )
        return self._pairs

    def _prove_pairs(self) -> bool:
        planes = self._planes(2)
        if planes and not self._limit.reached():
            self.hits()
        for plane in planes[::-1]:
            if self._limit.reached():
                return False
            pairs = self._pairs_of(plane)
            rows = kernels.good_pairs(pairs, self._cover.least(plane, self._best.threshold(2)))
            self._count(len(rows))
            _offer_pairs(self._best, rows, pairs, self._usable.size)
        return True

    def _prove_triples(self) -> bool:
        planes = self._planes(3)
        while planes:
            plane = planes.pop()
            threshold = self._best.threshold(3)
            candidates = self._promising(plane, threshold)
            if candidates is None:
                return False
            if len(candidates) > _MANY and (tighter := self._cover.split(plane, threshold)):
                planes += tighter
                continue
            redrawn = self._count_extensions(plane, candidates)
            if redrawn is None:
                return False
            planes = redrawn or planes
        return True

    def _count_extensions(self, plane: Plane, candidates: npt.NDArray[np.int32]) -> list[Plane] | None:
        """Count what extends pairs and offer it -> other planes that cover everything, if better ones turned up.

        None where that did not come to an end.
        """
        pairs = self._pairs_of(plane)
        threshold = self._best.threshold(3)
        least = self._cover.least(plane, threshold)
        for head, group in _by_head(candidates, self._atoms.postings[0], pairs.order):
            if self._limit.reached():
                return None
            if self._best.threshold(3) != threshold:
                threshold = self._best.threshold(3)
                least = self._cover.least(plane, threshold)
                if plane.of_condition and plane not in (redrawn := self._planes(3)):
                    return redrawn
            extended, n_counted = kernels.good_extensions(self._atoms, self._counts, pairs, head, group, least)
            self._count(n_counted)
            _offer_triples(self._best, extended, pairs.order, self._usable.size)
        return []

    def _promising(self, plane: Plane, threshold: Threshold) -> npt.NDArray[np.int32] | None:
        """Return the pairs of which an extension may reach the threshold and the least IoU; None at a limit."""
        found = self._open_pairs(plane, self._cover.least(plane, threshold))
        condition = self._cover.condition
        if found is None or condition is None or plane.of_condition or len(found) <= _FEW:
            return found
        ours = self._numbers(plane, found)
        if self._admitted is None:
            admitted = self._open_pairs(condition, self._cover.least(condition, threshold))
            if admitted is None:
                return None
            self._admitted = self._numbers(condition, admitted)
        return found[np.isin(ours, self._admitted)]

    def _open_pairs(self, plane: Plane, least: int) -> npt.NDArray[np.int32] | None:
        parts = []
        n = int(self._usable.sum())
        step = max(1, _STEP // (3 * n * n)) if self._limit.is_given else n
        for first in range(0, n, step):
            if self._limit.reached():
                return None
            part, n_bounds = kernels.promising_pairs(self._pairs_of(plane), least, first, min(first + step, n))
            self._limit.evaluations += n_bounds
            parts.append(part)
        return np.concatenate(parts)

    def _numbers(self, plane: Plane, rows: npt.NDArray[np.int32]) -> IntArray:
        """Return a number for each (a op b), int32[k, 3] by rank, that tells it by its concepts: planes rank these."""
        a, operators, b = rows.T.astype(np.int64)
        a, b = (self._pairs_of(plane).order[one].astype(np.int64) for one in (a, b))
        swapped = (operators != Operator.AND_NOT) & (a > b)
        a, b = np.where(swapped, b, a), np.where(swapped, a, b)
        numbers: IntArray = (a * self._usable.size + b) * len(Operator) + operators
        return numbers

    def _planes(self, length: int) -> list[Plane]:
        near = self._best.found[-1].intersection if self._best.found and length == PAIRED_LENGTH else None
        return self._cover.planes(self._best.threshold(length), near)

    def _count(self, n_formulas: int) -> None:
        self.counted += n_formulas
        self._limit.evaluations += n_formulas


def check_provable(options: SearchOptions, n_concepts: int) -> None:
    """Raise `InputError` where `optimal_search` could not prove what it is asked for."""
    if options.candidates is not None and options.candidates < n_concepts:
        wanted, remedy = f"None, or all {n_concepts} concepts, for a proof", "leave it out, or restrict them with only"
        raise InputError("candidates", wanted=wanted, got=str(options.candidates), remedy=remedy)
    if not options.scoring.monotone and n_concepts > MAX_CONCEPTS_COUNTED and options.length == PAIRED_LENGTH:
        wanted = f"at most {MAX_CONCEPTS_COUNTED} for a score that is not declared monotone"
        remedy = "declare it, restrict concepts with only or categories, or use length=2"
        raise InputError("concepts", wanted=wanted, got=str(n_concepts), remedy=remedy)
    if not options.scoring.monotone and n_concepts > MAX_CONCEPTS_LONGER and options.length > PAIRED_LENGTH:
        wanted = f"at most {MAX_CONCEPTS_LONGER} for a score that is not declared monotone and length > {PAIRED_LENGTH}"
        remedy = f"declare it, restrict concepts with only or categories, or use length={PAIRED_LENGTH}"
        raise InputError("concepts", wanted=wanted, got=str(n_concepts), remedy=remedy)
    if n_concepts > MAX_CONCEPTS:
        remedy = "restrict them with only or categories"
        raise InputError("concepts", wanted=f"at most {MAX_CONCEPTS} for a proof", got=str(n_concepts), remedy=remedy)


def _by_head(
    candidates: npt.NDArray[np.int32], starts: IntArray, order: npt.NDArray[np.int32]
) -> Iterable[tuple[int, npt.NDArray[np.int32]]]:
    """Group pairs by the one of their two concepts that fewer atoms hold: those atoms are visited once per group."""
    n_atoms = np.diff(starts)[order]
    first, second = candidates[:, 0], candidates[:, 2]
    heads = np.where(n_atoms[first] <= n_atoms[second], first, second)
    ordered = np.argsort(heads, kind="stable")
    distinct, n_of_head = np.unique(heads, return_counts=True)
    for head, last, n in zip(distinct.tolist(), np.cumsum(n_of_head).tolist(), n_of_head.tolist(), strict=True):
        for start in range(last - n, last, _GROUP):
            yield head, candidates[ordered[start : min(start + _GROUP, last)]]


def _offer_pairs(best: Incumbents, rows: npt.NDArray[np.int32], pairs: kernels.Pairs, n_concepts: int) -> None:
    """Offer pairs (a op b), int32[k, 3], by rank."""
    a, operators, b = rows.T
    hits, cells = (
        np.choose(operators, of_operators(shared[a, a], shared[b, b], shared[a, b]).T)
        for shared in (pairs.hits, pairs.sizes)
    )
    no_operators = np.zeros((len(rows), 0), np.uint8)
    _offer(best, pairs.order[a][:, None], no_operators, operators, pairs.order[b], hits, cells, n_concepts)


def _offer_triples(best: Incumbents, rows: IntArray, order: npt.NDArray[np.int32], n_concepts: int) -> None:
    """Offer extensions int64[k, 7] of a, op, b, op, c, |F and B|, |F|, concepts by rank."""
    a, first, b, second, c, hits, cells = rows.T
    pair = order[np.stack([a, b], axis=1)]
    pair[first != Operator.AND_NOT] = np.sort(pair[first != Operator.AND_NOT], axis=1)  # canonical
    _offer(best, pair, first[:, None].astype(np.uint8), second, order[c], hits, cells, n_concepts)


def _offer(
    best: Incumbents,
    parents: npt.NDArray[np.int32],
    parent_operators: npt.NDArray[np.uint8],
    operators: IntArray,
    concepts: npt.NDArray[np.int32],
    hits: IntArray,
    cells: IntArray,
    n_concepts: int,
) -> None:
    met = np.flatnonzero(hits > 0)
    best.see(hits[met], cells[met])
    met = met[best.objective.admits(hits[met], cells[met])]
    extended = Extensions(parents[met], parent_operators[met], hits[met], cells[met], 0)
    numbers = (np.arange(met.size) * n_concepts + concepts[met]) * len(Operator) + operators[met]
    chosen = best_of(best.objective, extended, numbers, hits[met], cells[met], n_concepts, best.top)
    best.offer(found_of(chosen, best.objective.bitmap_cells))
