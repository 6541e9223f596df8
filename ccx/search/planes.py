"""Necessary conditions, linear in counts, for a formula to reach a score (docs/optimal.md).

With i = |F and B| and e = |F and not B|, a plane is the condition q * i - p * e >= least. Its left side is a sum over
atoms, which can be bounded by what pairs of concepts share.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from ccx.scores import SCORES, SLACK, Custom, Line
from ccx.search.found import Objective
from ccx.typing import IntArray

_MAX_SUM = 1 << 60  # of values; their sums and differences stay far below the end of int64
_UNREACHED = 2 * _MAX_SUM  # more than any value
_SHORT = 1.05  # ratio of the ends of segments that are not split
_STEP = 1.03  # by which steps grow from the ends of a segment
_FINE_STEP = 1.003  # the same where only one look is taken
_N_COMPARED = 64  # numbers of cells at which two conditions are compared


class Threshold(NamedTuple):
    """What a formula must reach: a score of at least `rank`, or more where `strict`; without its length penalty."""

    rank: Fraction
    strict: bool


class Plane(NamedTuple):
    """A formula's value is q * |F and B| - p * |F and not B|, q and p >= 0.

    The plane speaks about formulas with `first` <= |F and B| <= `last`. With `of_condition` it is that of the least
    IoU, whatever the threshold.
    """

    q: int
    p: int
    first: int
    last: int
    of_condition: bool = False


class Cover:
    """Planes for a bitmap's objective: what reaches a threshold has at least the `least` value of one of them.

    `condition` is the plane of the least IoU that is asked for beside another score, which all formulas must reach,
    too; None without. By IoU itself thresholds hold it (`Incumbents.threshold`).

    Raises
    ------
    InputError
        If a custom score is not as monotone as it says.

    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._scoring = objective.scoring
        self._b, self._n = objective.bitmap_cells, objective.total
        self._rounding = 0.0
        if isinstance(self._scoring, Custom) and self._scoring.monotone:
            self._rounding = 2 * self._scoring.check_monotone(self._b, self._n)
        self.condition: Plane | None = None
        if objective.min_iou and self._scoring is not SCORES["iou"]:
            line = SCORES["iou"].line(objective.least_iou, self._b, self._n)
            if line is not None:
                self.condition = self._of_line(line)._replace(of_condition=True)
                self._least_of_condition = _least_of_line(self.condition, line, strict=False)

    def planes(self, threshold: Threshold, near: int | None = None) -> list[Plane]:
        """Return planes that cover all formulas which reach the threshold; none if no formula can.

        Where the score is no line, that is one plane, or several, tight for formulas with `near` cells in the bitmap.
        The plane of the condition comes instead if it permits fewer numbers of cells.
        """
        planes = self._planes_of_score(threshold, near)
        if planes and self.condition is not None and self._is_looser(threshold):
            return [self.condition]
        return planes

    def _planes_of_score(self, threshold: Threshold, near: int | None) -> list[Plane]:
        if not self._scoring.monotone:
            return [Plane(0, 0, 1, self._b)]  # says nothing about any formula
        line = self._scoring.line(threshold.rank, self._b, self._n)
        if line is None:
            return self._chords(threshold, near)
        if threshold.rank > 1 or (threshold.rank == 1 and threshold.strict):
            return []
        return [self._of_line(line)]

    def _of_line(self, line: Line) -> Plane:
        slope, _ = line
        if slope == 1:  # no cell may lie outside the bitmap
            return Plane(1, self._b, 1, self._b)
        a = min(slope.denominator, _MAX_SUM // self._n)
        c = math.floor(a * slope)
        return Plane(a - c, c, 1, self._b)

    def _is_looser(self, threshold: Threshold) -> bool:
        """Return whether the threshold permits at least as many cells outside, all in all, as the least IoU does."""
        if not self._scoring.monotone:
            return True
        inside = np.unique(np.linspace(1, self._b, _N_COMPARED).astype(np.int64))
        by_iou = np.floor(inside / float(self._objective.least_iou)) - self._b
        return bool(
            self._most_outside(inside, threshold).sum() >= np.clip(by_iou, -1, self._n - self._b).sum(dtype=np.float64)
        )

    def least(self, plane: Plane, threshold: Threshold) -> int:
        """Return the least value of any formula that the plane speaks about and that reaches the threshold.

        The threshold must not be below that which the plane was made for.
        """
        if plane.of_condition:
            return self._least_of_condition
        if not self._scoring.monotone:
            return 0
        line = self._scoring.line(threshold.rank, self._b, self._n)
        return self._least_of_steps(plane, threshold) if line is None else _least_of_line(plane, line, threshold.strict)

    def most(self, plane: Plane, value: int, threshold: Threshold) -> Fraction | None:
        """Return a rank, without penalty, that no formula exceeds of which the plane speaks, of at most so much value.

        At least the rank of the threshold, which must not be below that which the plane was made for; None where
        nothing can be said.
        """
        if value < self.least(plane, threshold):
            return threshold.rank
        if not self._scoring.monotone:
            return None
        value = min(value, plane.q * self._b)
        if not plane.of_condition and self._scoring.line(threshold.rank, self._b, self._n) is not None:
            # As for `least`: without cells outside. (Ranks take fractions of a cell as well.)
            inside: Any = Fraction(value, plane.q)
            return max(threshold.rank, self._scoring.rank(inside, inside, self._b, self._n))
        return max(threshold.rank, self._most_of_steps(plane, value))

    def _most_of_steps(self, plane: Plane, value: int) -> Fraction:
        """Bound ranks on each of many steps of |F and B|: by its last i, and the fewest cells outside of its first."""
        last = plane.last if plane.p else min(plane.last, value // plane.q)
        if last < plane.first:
            return Fraction(0)
        lasts = _steps(plane.first, last, _FINE_STEP)
        firsts = np.concatenate([[plane.first], lasts[:-1] + 1])
        outside = np.maximum(-((value - plane.q * firsts) // plane.p), 0) if plane.p else np.zeros_like(firsts)
        possible = (outside <= self._n - self._b) & self._objective.admits(lasts, lasts + outside)
        i, e = lasts[possible], outside[possible]
        ranks = self._scoring.approximate(i, i + e, self._b, self._n)
        most = float(ranks.max(initial=0.0))
        return Fraction(most * (1 + 4 * SLACK) + self._rounding) if most > 0 else Fraction(0)

    def _chords(self, threshold: Threshold, near: int | None) -> list[Plane]:
        """Return one plane for each segment of |F and B|, along the chord of the most cells outside."""
        lowest = self._first_with(0, threshold)
        if lowest is None:
            return []
        # From `anything` on, all cells outside do no harm: there the limit, which rises ever faster, turns level.
        anything = self._first_with(self._n - self._b, threshold)
        split = [one for one in (near, anything) if one is not None and lowest < one < self._b]
        ends = sorted({lowest, *split, self._b})
        return self._along(ends if len(ends) > 1 else ends * 2, threshold)

    def split(self, plane: Plane, threshold: Threshold) -> list[Plane]:
        """Return two tighter planes in place of one; none where the plane is exact, or its segment is short."""
        middle = math.isqrt(plane.first * plane.last)
        exact = not self._scoring.monotone or self._scoring.line(threshold.rank, self._b, self._n) is not None
        if exact or plane.of_condition or plane.last < _SHORT * plane.first or not plane.first < middle < plane.last:
            return []
        return self._along([plane.first, middle, plane.last], threshold)

    def _along(self, ends: list[int], threshold: Threshold) -> list[Plane]:
        """Return the planes along the chords of the most cells outside, from each |F and B| in `ends` to the next."""
        outside = self._most_outside(np.array(ends), threshold).tolist()
        return [
            Plane(*self._direction(first, last, less, more), first, last)
            for first, last, less, more in zip(ends, ends[1:], outside, outside[1:], strict=False)
        ]

    def _direction(self, first: int, last: int, less: int, more: int) -> tuple[int, int]:
        """Return q and p, any of which make a plane; values stay within `_MAX_SUM`."""
        rest = self._n - self._b
        q, p = more - less, last - first
        if q <= 0:  # level: either all cells outside are permitted, or none more than at `first`
            q, p = (1, 0) if less >= rest else (max(less, 1), first)
        divisor = math.gcd(q, p)
        q, p = q // divisor, p // divisor
        shift = (max(q * self._b, p * rest) // _MAX_SUM).bit_length()
        return q >> shift, p >> shift

    def _first_with(self, outside: int, threshold: Threshold) -> int | None:
        """Return the least |F and B| that reaches the threshold beside so many cells outside; None if none does."""
        below, reached, least = 0, self._b + 1, self._least_float(threshold)
        while reached - below > 1:
            middle = (below + reached) // 2
            (rank,) = self._scoring.approximate(np.array([middle]), np.array([middle + outside]), self._b, self._n)
            below, reached = (below, middle) if rank >= least else (middle, reached)
        return reached if reached <= self._b else None

    def _least_of_steps(self, plane: Plane, threshold: Threshold) -> int:
        """Bound the value from below on each of many steps of |F and B|: by its first i, and what its last permits."""
        lasts = _steps(plane.first, plane.last, _STEP)
        firsts = np.concatenate([[plane.first], lasts[:-1] + 1])
        outside = self._most_outside(lasts, threshold)
        values = np.where(outside >= 0, plane.q * firsts - plane.p * outside, _UNREACHED)
        while True:
            # Approximations let ties pass, and what falls short by less than floats tell: where that decides, look.
            at = int(np.argmin(values))
            i, e = int(lasts[at]), int(outside[at])
            if plane.p == 0 or e < 0 or self._rounding or self._is_reached(i, e, threshold):
                return int(values[at])
            outside[at] -= 1
            values[at] = values[at] + plane.p if e else _UNREACHED

    def _is_reached(self, inside: int, outside: int, threshold: Threshold) -> bool:
        rank = self._scoring.rank(inside, inside + outside, self._b, self._n)
        return rank >= threshold.rank and not (threshold.strict and rank == threshold.rank)

    def _most_outside(self, inside: IntArray, threshold: Threshold) -> IntArray:
        """Return for each |F and B| the most |F and not B| with which the threshold may be reached, or -1: int64[k].

        Never too few: approximations that may be off are taken as reached.
        """
        low, high = np.full(inside.size, -1, np.int64), np.full(inside.size, self._n - self._b + 1, np.int64)
        least = self._least_float(threshold)
        while (open_ := np.flatnonzero(high - low > 1)).size:
            i, middle = inside[open_], (low[open_] + high[open_]) // 2
            ranks = self._scoring.approximate(i, i + middle, self._b, self._n)
            reached = ranks >= least
            low[open_[reached]] = middle[reached]
            high[open_[~reached]] = middle[~reached]
        return low

    def _least_float(self, threshold: Threshold) -> float:
        """Return a number > 0 that approximations which reach the threshold are not below."""
        least = float(threshold.rank) * (1 - 4 * SLACK) - self._rounding
        return max(least, math.nextafter(0, 1))


def _least_of_line(plane: Plane, line: Line, strict: bool) -> int:
    slope, at_zero = line
    if slope >= 1:
        return plane.q
    # i >= slope * (i + e) + at_zero is least at e = 0, as p / q <= slope / (1 - slope).
    exact = plane.q * at_zero / (1 - slope)
    return math.floor(exact) + 1 if strict else math.ceil(exact)


def _steps(first: int, last: int, growth: float) -> IntArray:
    """Return the last numbers of steps from `first` to `last`, short ones at both ends, the longer the farther away."""
    half = (last - first) // 2
    grown = np.arange(math.ceil(math.log(half, growth)) if half > 1 else half)
    near = np.concatenate([[0], np.floor(growth**grown).astype(np.int64), [half]])
    return np.unique(np.concatenate([first + near, last - near, [max(last - 1, first), last]]))
