"""The best formulas that a proof has found so far, and what any other must reach."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ccx.scores import SCORES
from ccx.search.found import Found, Objective, SearchResult
from ccx.search.planes import Threshold
from ccx.typing import IntArray


class Incumbents:
    """The best `top` formulas so far that the objective admits, in tie order; `start` is what a beam found.

    `met` says whether any formula of a score above 0 was seen, admitted or not.
    """

    def __init__(self, start: SearchResult, objective: Objective, top: int) -> None:
        self.found = start.found
        self.met = start.met
        self.objective = objective
        self.top = top
        self._thresholds: dict[int, Threshold] = {}

    def see(self, intersections: IntArray, sizes: IntArray) -> None:
        """Take note of formulas that were counted, |F and B| > 0 and |F|."""
        if not self.met and intersections.size:
            counts = self.objective.bitmap_cells, self.objective.total
            self.met = bool((self.objective.scoring.approximate(intersections, sizes, *counts) > 0).any())

    def offer(self, candidates: Sequence[Found]) -> None:
        """Let formulas in that are admitted and precede those that are there."""
        if not candidates:
            return
        merged = {(one.concepts, one.operators): one for one in [*self.found, *candidates]}
        self.found = sorted(merged.values(), key=self.objective.precedence)[: self.top]
        self._thresholds.clear()

    def threshold(self, length: int) -> Threshold:
        """Return what a formula of this length must reach to enter."""
        if length not in self._thresholds:
            self._thresholds[length] = self._threshold(length)
        return self._thresholds[length]

    def _threshold(self, length: int) -> Threshold:
        reached = Threshold(Fraction(0), strict=True)
        if len(self.found) == self.top:
            worst = self.found[-1]
            rank = self.objective.rank(worst) / self.objective.factor(length)
            reached = Threshold(rank, strict=len(worst.concepts) < length)  # ties go to the shorter
        if self.objective.scoring is SCORES["iou"] and self.objective.least_iou > reached.rank:
            return Threshold(self.objective.least_iou, strict=False)
        return reached
