"""The published heuristic-guided beam search, on exact counts (docs/heuristics.md).

At each level, every formula of the beam is extended by every concept and operator, also those that were extended
before. Each candidate is given an estimate (MMESH, CFH or areas; La Rosa et al. 2023); candidates are
evaluated from the highest estimate down, until the next one cannot reach a place any more. Unrounded
estimates are upper bounds, so the formulas found are those of exact beam search.

Exact counts of all candidates come from the atoms at once; `visited` is what a search that evaluates one candidate at
a time, as the published one does, would have evaluated.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from itertools import count
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from ccx import jobs
from ccx.checks import shown
from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.formula import Operator, canonical_ids
from ccx.kernels.atoms import concept_counts, total_counts
from ccx.kernels.estimates import estimate_extensions
from ccx.kernels.formulas import best_singles
from ccx.kernels.places import converted, place_of, to_host
from ccx.kernels.rows import popcount
from ccx.options import SearchOptions
from ccx.scores import SCORES
from ccx.search.beam import JointCounts, as_extensions, extensions_of, found_of
from ccx.search.choosing import best_extenders, of_operators
from ccx.search.found import Found, Objective, SearchResult
from ccx.search.masks import ConceptMasks
from ccx.search.protocol import Search
from ccx.typing import FloatArray, IntArray

Heuristic: TypeAlias = Literal["mmesh", "cfh", "areas", "none"]
Parts: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]


def guided_search(  # noqa: PLR0913 - keywords of one search
    concepts: Concepts,
    counts: IntArray,
    options: SearchOptions,
    allowed: npt.NDArray[np.bool_] | None = None,
    *,
    heuristic: Heuristic,
    masks: ConceptMasks | None = None,
    bitmap: npt.NDArray[np.uint64] | None = None,
    published: bool = False,
    threads: int | None = None,
) -> SearchResult:
    """Find the formulas that describe a bitmap best, and count what the heuristic spares.

    Parameters
    ----------
    concepts, counts, options, allowed, threads
        As for `beam_search`, which finds the same formulas.
    heuristic
        "mmesh", "cfh", "areas"; "none" estimates nothing and evaluates everything.
    masks, bitmap
        The concepts' masks, and the bitmap uint64[N, n_words] that `counts` counts; "none" needs neither. Masks are
        copied to where the bitmap lies, once, and estimates are made there.
    published
        Do as the published code does, for comparison (docs/parity.md): estimates rounded to 4 decimals, IoUs in
        float32 of which only a greater one displaces another, candidates that repeat a concept, formulas merged by
        its looser equality, no length penalty. Formulas are found in the form in which they were built.

    """
    jobs.check_stopped()
    atoms = concepts.atoms.sets_at(place_of(counts))
    bitmap_cells = int(to_host(total_counts(atoms, counts)))
    usable = np.ones(concepts.n_concepts, np.bool_) if allowed is None else allowed
    intersections = to_host(concept_counts(atoms, counts))
    n_starts = max(2 * options.beam, options.top)
    singles = best_singles(intersections, concepts.sizes, bitmap_cells, n_starts, usable)
    starts = found_of(as_extensions(singles, intersections, concepts.sizes), bitmap_cells)
    objective = Objective.of(options, bitmap_cells, concepts.n_cells)
    if options.candidates is not None:
        usable = best_extenders(objective, intersections, concepts.sizes, options.candidates, usable)

    rules = _Published() if published else _Exact(objective)
    extend = _Extender(concepts, counts, intersections, heuristic, masks, bitmap, threads)
    best, beam = _Places(options.top, rules, options.min_iou), _Places(options.beam, rules)
    for one in starts:
        best.offer(one)
        beam.offer(one)
    parents = starts[: 2 * options.beam]
    visited = expanded = estimated = 0
    for level in range(2, options.length + 1 if starts else 0):
        extended = [extend(parent) for parent in parents]
        candidates = np.flatnonzero(_candidates(parents, usable, rules))
        bounds, scores = (
            np.concatenate([part.ravel() for part in parts])[candidates]
            for parts in zip(*(_bounds_and_scores(one, bitmap_cells, rules) for one in extended), strict=True)
        )
        order = np.argsort(-bounds, kind="stable")  # of equal ones the first derived is the first evaluated
        lists = (best,) if level == options.length else (best, beam)  # nothing follows that needs the last beam
        best.demand(rules.least_of(options.min_iou, level))
        least = min(places.least for places in lists)
        for bound, score, candidate in zip(
            *(part[order].tolist() for part in (bounds, scores, candidates)), strict=True
        ):
            if bound < least:
                break
            visited += 1
            if score >= least:
                which, extension = divmod(candidate, 3 * concepts.n_concepts)
                found = extended[which].candidate(*divmod(extension, 3), bitmap_cells, rules)
                for places in lists:
                    places.offer(found)
                least = min(places.least for places in lists)
        expanded += len(parents)
        estimated += 0 if heuristic == "none" else candidates.size
        parents = beam.found
    return SearchResult(best.found, visited, expanded, estimated, met=bool(starts))


class GuidedSearch(Search):
    """`guided_search`, as `explain` runs it."""

    was_published = True

    def check(self, permutations: int) -> None:
        """Raise `InputError` where the options ask for what the published searches do not have."""
        super().check(permutations)
        self.measures_masks = self.options.search != "none"
        if self.options.scoring is not SCORES["iou"]:
            wanted, remedy = '"iou", which the published searches estimate', 'use search="beam" or "optimal"'
            raise InputError("scoring", wanted=wanted, got=shown(self.options.scoring.name), remedy=remedy)
        if self.options.published and self.options.length_penalty != 1:
            got, remedy = shown(self.options.length_penalty), "the published searches have none"
            raise InputError("length_penalty", wanted="1", got=got, remedy=remedy)

    def prepare(self, concepts: Concepts, allowed: npt.NDArray[np.bool_], threads: int) -> None:
        """Measure the masks of the concepts, where they are estimated."""
        super().prepare(concepts, allowed, threads)
        self._masks = ConceptMasks(concepts, threads=threads) if self.measures_masks else None

    def __call__(self, counts: IntArray, bitmap: Callable[[], Any]) -> SearchResult:
        """Search one bitmap."""
        return guided_search(
            self.concepts, counts, self.options, self.allowed, heuristic=cast(Heuristic, self.options.search),
            masks=self._masks, bitmap=bitmap() if self._masks is not None else None, published=self.options.published,
        )  # fmt: skip


class _Extended(NamedTuple):
    """All extensions of a formula: |E and B|, |E|, numerators and denominators of their estimates, int64[C, 3]."""

    formula: Found
    intersections: IntArray
    sizes: IntArray
    numerators: IntArray
    denominators: IntArray

    def candidate(self, concept: int, operator: int, bitmap_cells: int, rules: _Rules) -> Found:
        """Return the extension by one concept with one operator."""
        parts = rules.parts((*self.formula.concepts, concept), (*self.formula.operators, operator))
        intersection, size = int(self.intersections[concept, operator]), int(self.sizes[concept, operator])
        return Found(*parts, intersection, size, bitmap_cells + size - intersection)


class _Extender:
    """Counts and estimates all extensions of formulas, each formula once."""

    def __init__(
        self,
        concepts: Concepts,
        counts: IntArray,
        intersections: IntArray,
        heuristic: Heuristic,
        masks: ConceptMasks | None,
        bitmap: npt.NDArray[np.uint64] | None,
        threads: int | None,
    ) -> None:
        self._joint_counts = JointCounts(concepts, counts, threads)
        self._sizes, self._intersections = concepts.sizes, intersections
        self._heuristic, self._threads = heuristic, threads
        self._known: dict[Parts, _Extended] = {}
        if heuristic != "none":
            if masks is None or bitmap is None:
                remedy = "pass ConceptMasks(concepts) and the packed bitmap"
                raise InputError("masks", wanted=f"what {heuristic} measures", got="None", remedy=remedy)
            self._masks = masks.at(place_of(bitmap))
            self._bitmap = self._masks.without_void(bitmap)
            self._hits = self._masks.hits(self._bitmap, threads=threads)
            self._areas = converted(popcount(self._bitmap, threads=threads), np.int32)

    def __call__(self, formula: Found) -> _Extended:
        parts = formula.concepts, formula.operators
        if parts not in self._known:
            joint_sizes, joint = (counts[0] for counts in self._joint_counts(extensions_of([formula])))
            self._known[parts] = _Extended(
                formula,
                of_operators(formula.intersection, self._intersections, joint),
                of_operators(formula.size, self._sizes, joint_sizes),
                *self._estimates(*parts),
            )
        return self._known[parts]

    def _estimates(self, concepts: tuple[int, ...], operators: tuple[int, ...]) -> tuple[IntArray, IntArray]:
        if self._heuristic == "none":
            nothing = np.zeros((self._sizes.size, 3), np.int64)
            return nothing, nothing
        boxes = self._heuristic == "mmesh"
        shapes = self._masks.formula_shapes(
            concepts, operators, self._bitmap, self._hits, boxes=boxes, threads=self._threads
        )
        numerators, denominators = estimate_extensions(
            shapes, self._masks.shapes, self._hits[None], self._areas[None], self._masks.n_cells, self._heuristic,
            threads=self._threads,
        )  # fmt: skip
        return to_host(numerators)[0, 0], to_host(denominators)[0, 0]


def _candidates(parents: list[Found], usable: npt.NDArray[np.bool_], rules: _Rules) -> npt.NDArray[np.bool_]:
    """Mark the first derivation of each candidate, in the order of formula, concept, operator: bool[F, C, 3]."""
    chosen = np.broadcast_to(usable[:, None], (len(parents), usable.size, 3)).copy()
    for ours, parent in zip(chosen, parents, strict=True):
        ours[list(parent.concepts), : rules.n_operators_barred(len(parent.concepts))] = False
    met = set()
    shared = rules.may_repeat(parents, usable)
    for ours, parent in zip(chosen, parents, strict=True):
        for concept in shared:
            for operator in np.flatnonzero(ours[concept]).tolist():
                identity = rules.identity((*parent.concepts, concept), (*parent.operators, operator))
                ours[concept, operator] = identity not in met
                met.add(identity)
    return chosen


def _bounds_and_scores(extended: _Extended, bitmap_cells: int, rules: _Rules) -> tuple[FloatArray, FloatArray]:
    """Return float64[C, 3] twice: what no score exceeds, and the scores."""
    length = len(extended.formula.concepts) + 1
    unions = bitmap_cells + extended.sizes - extended.intersections
    return (
        rules.bounds(extended.numerators, extended.denominators, length),
        rules.scores(extended.intersections, unions, length),
    )


class _Places:
    """The best formulas offered so far, at most `capacity`, best first; those of score 0 and repeats stay out.

    So do those below `min_iou`.
    """

    def __init__(self, capacity: int, rules: _Rules, min_iou: float = 0.0) -> None:
        self._capacity = capacity
        self._rules = rules
        self._min_iou = min_iou
        self._ranked: list[tuple[Any, Found]] = []  # with their keys, which all differ
        self._identities: set[Any] = set()
        self._demanded = -np.inf
        self._worst = -np.inf

    @property
    def found(self) -> list[Found]:
        return [one for _, one in self._ranked]

    @property
    def least(self) -> float:
        """A score below it gets no place."""
        return max(self._worst, self._demanded)

    def demand(self, least: float) -> None:
        """Note that no score below this gets a place from now on, though places may be free."""
        self._demanded = least

    def offer(self, one: Found) -> None:
        identity = self._rules.identity(one.concepts, one.operators)
        if not one.intersection or one.iou < self._min_iou or identity in self._identities:
            return
        self._identities.add(identity)
        insort(self._ranked, (self._rules.key(one), one))
        if len(self._ranked) > self._capacity:
            _, last = self._ranked.pop()
            self._identities.remove(self._rules.identity(last.concepts, last.operators))
        if len(self._ranked) == self._capacity:
            self._worst = self._rules.least(self._ranked[-1][1])


class _Exact:
    """The rules of exact beam search: distinct concepts, logical identity, the tie order."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective

    def n_operators_barred(self, length: int) -> int:  # noqa: ARG002
        """Of concepts that a formula holds; OR comes first, then AND, then AND NOT."""
        return 3

    def may_repeat(self, parents: list[Found], usable: npt.NDArray[np.bool_]) -> list[int]:
        """Return the concepts whose candidates may be equal to others.

        Equal formulas hold the same concepts. If both are new by the same concept, what they extend is equal, which
        no two formulas of a beam are; so each is new by a concept that the other extends.
        """
        return sorted({c for parent in parents for c in parent.concepts if usable[c]})

    def parts(self, concepts: tuple[int, ...], operators: tuple[int, ...]) -> Parts:
        ordered, connectives = canonical_ids(concepts, operators)
        return ordered, tuple(map(int, connectives))

    def identity(self, concepts: tuple[int, ...], operators: tuple[int, ...]) -> Any:
        return canonical_ids(concepts, operators)

    def key(self, one: Found) -> Any:
        return self._objective.precedence(one)

    def bounds(self, numerators: IntArray, denominators: IntArray, length: int) -> FloatArray:
        # The quotient of two integers below 2**53 is rounded to the nearest float, which keeps <= and >=.
        ratios = np.divide(numerators, denominators, out=np.full(numerators.shape, np.inf), where=denominators > 0)
        bounds: FloatArray = ratios * self._factor(length)
        return bounds

    def scores(self, intersections: IntArray, unions: IntArray, length: int) -> FloatArray:
        scores: FloatArray = intersections / unions * self._factor(length)
        return scores

    def least(self, one: Found) -> float:
        return self._rounded_down(self._objective.score(one))

    def least_of(self, min_iou: float, length: int) -> float:
        return self._rounded_down(min_iou * self._factor(length)) if min_iou else -np.inf

    def _rounded_down(self, score: float) -> float:
        # Products of rounded numbers may be off by a few units in the last place, or of the smallest float.
        return score if self._objective.penalty == 1 else score * (1 - 2.0**-48) - 1e-300

    def _factor(self, length: int) -> float:
        return float(self._objective.factor(length))


class _Published:
    """The rules of the published code (docs/parity.md)."""

    def __init__(self) -> None:
        self._arrivals = count()

    def n_operators_barred(self, length: int) -> int:
        return 2 if length < 3 else 0

    def may_repeat(self, parents: list[Found], usable: npt.NDArray[np.bool_]) -> list[int]:  # noqa: ARG002
        found: list[int] = np.flatnonzero(usable).tolist()
        return found

    def parts(self, concepts: tuple[int, ...], operators: tuple[int, ...]) -> Parts:
        return concepts, operators

    def identity(self, concepts: tuple[int, ...], operators: tuple[int, ...]) -> Any:
        """Merge formulas of the same top operator, concepts and operators, and the same hash.

        The hash stands for its value where a concept is a tiny number, OR a sum, AND a product and NOT x is 1 - x: to
        4 decimals, a product of two concepts is nothing, and AND NOT changes nothing.
        """
        hash_ = concepts[0] + 1  # concepts are numbered from 1 there
        for operator, concept in zip(operators, concepts[1:], strict=True):
            if operator != Operator.AND_NOT:
                hash_ = hash_ + concept + 1 if operator == Operator.OR else 0
        top_is_or = operators[-1:] == (Operator.OR,)
        return top_is_or, tuple(sorted(concepts)), operators.count(Operator.OR), operators.count(Operator.AND), hash_

    def key(self, one: Found) -> Any:
        return -self.least(one), next(self._arrivals)

    def bounds(self, numerators: IntArray, denominators: IntArray, length: int) -> FloatArray:  # noqa: ARG002
        """Divide as it does: CFH and areas may become negative, which hides the best candidates."""
        ratios = np.divide(numerators, denominators, out=np.full(numerators.shape, np.inf), where=denominators != 0)
        bounds: FloatArray = np.round(ratios, 4)
        return bounds

    def scores(self, intersections: IntArray, unions: IntArray, length: int) -> FloatArray:  # noqa: ARG002
        return (intersections.astype(np.float32) / unions.astype(np.float32)).astype(np.float64)

    def least(self, one: Found) -> float:
        return float(np.float32(one.intersection) / np.float32(one.union))

    def least_of(self, min_iou: float, length: int) -> float:  # noqa: ARG002
        """Return what spares nothing: it looks at all candidates while places are free."""
        return -np.inf


_Rules: TypeAlias = _Exact | _Published
