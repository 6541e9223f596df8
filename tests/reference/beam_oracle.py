"""The published beam search as it is written, on boolean masks: what exact beam search must agree with.

Nothing is shared with ccx: no atoms, no counts by inclusion and exclusion, no canonical form to recognise equal
formulas (their truth tables are compared), no shortcut for formulas that stay in the beam (all of them are extended
again, at every level), and scores are `Fraction`s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

OR, AND, AND_NOT = 0, 1, 2
Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Candidate:
    """A left-deep formula ``((c0 op0 c1) op1 c2) ...`` of concept indices from 0, and its exact counts."""

    concepts: tuple[int, ...]
    operators: tuple[int, ...]
    intersection: int
    size: int
    union: int
    table: int = field(repr=False)  # truth table over all concepts: bit v is the value under assignment v
    penalty: Fraction = Fraction(1)
    squared: Fraction | None = None  # another score than IoU: its square, with its sign

    @cached_property
    def canonical(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(concepts, operators) of the canonical form."""
        runs: list[tuple[bool, list[tuple[int, int]]]] = []  # of one connective: its (negated, concept) pairs
        for operator, concept in zip(self.operators, self.concepts[1:], strict=True):
            if not runs or runs[-1][0] != (operator == OR):
                runs.append((operator == OR, []))
            runs[-1][1].append((int(operator == AND_NOT), concept))
        if not runs:
            return self.concepts, ()
        runs[0][1].append((0, self.concepts[0]))
        operands = [(is_or, *operand) for is_or, run in runs for operand in sorted(run)]
        operators = tuple(OR if is_or else AND_NOT if negated else AND for is_or, negated, _ in operands[1:])
        return tuple(concept for *_, concept in operands), operators

    @cached_property
    def key(self) -> tuple[Fraction, int, int, tuple[int, ...], tuple[int, ...]]:
        """Sorts candidates in tie order, best first."""
        iou = Fraction(self.intersection, self.union) if self.union else Fraction(0)
        score = iou * self.penalty ** (len(self.concepts) - 1)
        if self.squared is not None:
            score = self.squared * self.penalty ** (2 * (len(self.concepts) - 1))
        return -score, len(self.concepts), self.operators.count(AND_NOT), *self.canonical


class Problem:
    """A bitmap bool[cells] and concepts bool[C, cells], valid cells only."""

    def __init__(
        self,
        masks: Masks,
        bitmap: Masks,
        penalty: float = 1.0,
        measure: Callable[[int, int, int, int], Fraction] | None = None,
    ) -> None:
        self.measure = measure  # of true and false positives, false and true negatives
        self.masks, self.bitmap, self.penalty = masks, bitmap, Fraction(penalty)
        n_rows = 2 ** len(masks)
        self._variables = [sum(1 << row for row in range(n_rows) if row >> c & 1) for c in range(len(masks))]
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], Candidate] = {}
        self.extended: set[tuple[int, int, int]] = set()  # (truth table, concept, operator) of all extensions so far

    def candidate(self, concepts: tuple[int, ...], operators: tuple[int, ...]) -> Candidate:
        """Evaluate a formula cell by cell; remembered, as the search asks for the same ones again and again."""
        if (concepts, operators) not in self._known:
            mask, table = self.masks[concepts[0]], self._variables[concepts[0]]
            for operator, concept in zip(operators, concepts[1:], strict=True):
                other, variable = self.masks[concept], self._variables[concept]
                if operator == OR:
                    mask, table = mask | other, table | variable
                elif operator == AND:
                    mask, table = mask & other, table & variable
                else:
                    mask, table = mask & ~other, table & ~variable
            counts = [int(np.sum(m)) for m in (mask & self.bitmap, mask, mask | self.bitmap)]
            squared = None
            if self.measure is not None:
                outside, missed = mask & ~self.bitmap, self.bitmap & ~mask
                squared = self.measure(counts[0], *(int(np.sum(m)) for m in (outside, missed, ~mask & ~self.bitmap)))
            self._known[concepts, operators] = Candidate(concepts, operators, *counts, table, self.penalty, squared)
        return self._known[concepts, operators]

    @property
    def known(self) -> list[Candidate]:
        """All formulas that were evaluated so far."""
        return list(self._known.values())

    def extensions(self, formulas: Iterable[Candidate], usable: Sequence[int]) -> Iterator[Candidate]:
        """Every formula extended by every usable concept that it does not hold, with every operator."""
        for formula, concept, operator in product(formulas, usable, (OR, AND, AND_NOT)):
            if concept not in formula.concepts:
                self.extended.add((formula.table, concept, operator))
                yield self.candidate((*formula.concepts, concept), (*formula.operators, operator))


def best(candidates: Iterable[Candidate], keep: int) -> list[Candidate]:
    """Return the `keep` best in tie order, logically equal ones once, none with a score of 0."""
    distinct = {one.table: one for one in candidates if one.intersection and one.key[0] < 0}
    return sorted(distinct.values(), key=lambda one: one.key)[:keep]


def beam_search(
    problem: Problem,
    *,
    length: int,
    beam: int,
    candidates: int | None = None,
    top: int = 1,
    allowed: Sequence[int] | None = None,
    min_iou: float = 0.0,
) -> list[Candidate]:
    """Return the `top` best of all formulas of this IoU that the published beam search evaluates."""
    usable = list(range(len(problem.masks))) if allowed is None else list(allowed)
    singles = best((problem.candidate((concept,), ()) for concept in usable), len(usable))
    evaluated = list(singles)
    extended, kept = singles[: 2 * beam], singles[:beam]
    if candidates is not None:
        scored = [one.concepts[0] for one in singles]
        usable = [*scored, *(concept for concept in usable if concept not in scored)][:candidates]
    for _ in range(2, length + 1):
        new = list(problem.extensions(extended, usable))
        evaluated += new
        kept = best([*kept, *new], beam)
        extended = kept
    # Formulas that stay in the beam grow from level to level, but never beyond `length` concepts.
    return best((one for one in evaluated if one.union and one.intersection / one.union >= min_iou), top)


def best_of_all(problem: Problem, length: int, top: int = 1, *, reachable: bool = False) -> list[Candidate]:
    """Return the `top` best of all left-deep formulas of at most `length` distinct concepts.

    `reachable` leaves out those that extend a formula without any cell of the bitmap, as no beam ever holds one.
    """
    everything = (
        problem.candidate(concepts, operators)
        for n in range(1, min(length, len(problem.masks)) + 1)
        for concepts in permutations(range(len(problem.masks)), n)
        for operators in product((OR, AND, AND_NOT), repeat=n - 1)
        if not reachable or all(problem.candidate(concepts[:m], operators[: m - 1]).intersection for m in range(1, n))
    )
    return best(everything, top)
