"""The best formulas that a proof has found so far, and what any other must reach."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ccx.search.found import Found, Objective
from ccx.search.planes import Threshold


class Incumbents:
    """The best `top` formulas so far, in tie order."""

    def __init__(self, found: list[Found], objective: Objective, top: int) -> None:
        self.found = found
        self._objective = objective
        self._top = top

    def offer(self, candidates: Sequence[Found]) -> None:
        """Let formulas in that precede those that are there."""
        if not candidates:
            return
        merged = {(one.concepts, one.operators): one for one in [*self.found, *candidates]}
        self.found = sorted(merged.values(), key=self._objective.precedence)[: self._top]

    def threshold(self, length: int) -> Threshold:
        """Return what a formula of this length must reach to enter."""
        if len(self.found) < self._top:
            return Threshold(Fraction(0), strict=True)
        worst = self.found[-1]
        # Ties go to the shorter.
        rank = self._objective.rank(worst) / self._objective.factor(length)
        return Threshold(rank, strict=len(worst.concepts) < length)
