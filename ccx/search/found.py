"""What searches find, and how they order it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

from ccx.formula import Operator
from ccx.options import SearchOptions
from ccx.scores import Score


class Found(NamedTuple):
    """A formula in canonical form with its exact counts.

    `concepts` are indices from 0, `operators` one less; `intersection` is |F and B|, `size` |F|,
    `union` |F or B|.
    """

    concepts: tuple[int, ...]
    operators: tuple[int, ...]
    intersection: int
    size: int
    union: int

    @property
    def iou(self) -> float:
        """Intersection over union, rounded to the nearest float; 0 where both are 0."""
        return self.intersection / self.union if self.union else 0.0


class SearchResult(NamedTuple):
    """The best formulas found, best first, and what it took.

    `visited` formulas longer than 1 were evaluated exactly, `expanded` ones were extended (once for each level
    that did), `estimated` candidates were given an estimate. A proof evaluated `evaluations` formulas, and no score is
    above `upper_bound`; with `optimal`, no formula precedes those found. None and False where nothing is proven. All
    this speaks of formulas that have the least IoU which was asked for; `met` says whether any formula at all was
    evaluated that shares a cell with the bitmap and has a score above 0.
    """

    found: list[Found]
    visited: int = 0
    expanded: int = 0
    estimated: int = 0
    evaluations: int = 0
    upper_bound: float | None = None
    optimal: bool = False
    met: bool = False


class Objective(NamedTuple):
    """What a search of one bitmap maximises, score * penalty ** (length - 1), among formulas of an IoU >= `min_iou`."""

    scoring: Score
    penalty: Fraction
    bitmap_cells: int
    total: int
    min_iou: float = 0.0

    @classmethod
    def of(cls, options: SearchOptions, bitmap_cells: int, total: int) -> Objective:
        """Return what the options ask for, given |B| and the number of valid cells."""
        return cls(options.scoring, Fraction(options.length_penalty), bitmap_cells, total, options.min_iou)

    def admits(self, intersections: Any, sizes: Any) -> Any:
        """Return whether formulas with |F and B| > 0 and |F| cells have the IoU asked for: numbers, or int64 arrays.

        What is compared is the IoU as `Found.iou` rounds it, so that what results show is what decides.
        """
        return intersections / (self.bitmap_cells + sizes - intersections) >= self.min_iou

    @property
    def least_iou(self) -> Fraction:
        """What the exact IoU of every formula that is admitted reaches: half a float below `min_iou`, or 0."""
        return (Fraction(self.min_iou) + Fraction(math.nextafter(self.min_iou, 0.0))) / 2

    def rank(self, one: Found) -> Fraction:
        """Return what orders formulas as the objective does: the penalised score, or its square (`Score.power`)."""
        rank = self.scoring.rank(one.intersection, one.size, self.bitmap_cells, self.total)
        return rank * self.factor(len(one.concepts))

    def factor(self, length: int) -> Fraction:
        """Return what the penalty makes of the ranks of formulas of this length."""
        return self.penalty ** (self.scoring.power * (length - 1))

    def score(self, one: Found) -> float:
        """Return the penalised score, in floating point."""
        score = self.scoring(one.intersection, one.size, self.bitmap_cells, self.total)
        return score * float(self.penalty) ** (len(one.concepts) - 1)

    def precedence(self, one: Found) -> tuple[Fraction, int, int, tuple[int, ...], tuple[int, ...]]:
        """Return a key that sorts formulas in tie order, best first, by exact arithmetic."""
        n_nots = one.operators.count(Operator.AND_NOT)
        return -self.rank(one), len(one.concepts), n_nots, one.concepts, one.operators
