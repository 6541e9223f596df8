"""Scores of a formula F for a bitmap B: what a search maximises (docs/scores.md).

All are functions of four numbers of cells: i = |F and B|, f = |F|, b = |B| and n, all valid cells. Formulas are
ordered by exact *ranks*, fractions of integers: the score itself, or its square where the score is a root. Floats
only say which formulas need a look.
"""

from __future__ import annotations

import functools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from ccx.checks import shown
from ccx.errors import InputError
from ccx.typing import FloatArray, IntArray

__all__ = ["SCORES", "Custom", "Score", "resolve"]

Factors: TypeAlias = tuple[tuple[Any, ...], tuple[Any, ...]]
Line: TypeAlias = tuple[Fraction, Fraction]

SLACK = 2.0**-48  # `approximate` is that close, relatively; it takes fewer than 2**4 roundings
_SMALL = 1 << 31  # cells, below which products of two counts, and sums of two of those, fit into int64
_ROUNDING = 2.0**-30  # of the highest score: errors that a custom score may have
_N_CHECKED = 33  # counts of each kind at which the monotonicity of a custom score is checked


class Score(ABC):
    """What a search maximises. Only formulas with i > 0 and a score above 0 are ever found.

    Attributes
    ----------
    name
        What `scoring` calls it.
    title
        What tables call it.
    power
        1, or 2 where `rank` is the square of the score (with its sign).
    monotone
        Whether, where the score is above 0, a further cell of B in F never lowers it (i and f by one higher),
        and a further cell outside B in F never raises it (f by one higher).

    """

    name: str
    title: str
    power: int
    monotone: bool

    @abstractmethod
    def rank(self, intersection: int, formula_cells: int, bitmap_cells: int, total: int) -> Fraction:
        """Return what orders formulas of one bitmap exactly as the score does: score ** power, with its sign."""

    @abstractmethod
    def approximate(
        self, intersections: IntArray, formula_cells: IntArray, bitmap_cells: int, total: int
    ) -> FloatArray:
        """Return the ranks of many formulas, with a relative error of at most `SLACK`, and exactly where they are 0."""

    @abstractmethod
    def places(self, intersections: IntArray, formula_cells: IntArray, bitmap_cells: int, total: int) -> IntArray:
        """Return places int64[k] by exact rank: 0 for the highest, equal ones alike, without gaps."""

    def line(self, rank: Fraction, bitmap_cells: int, total: int) -> Line | None:  # noqa: ARG002
        """Return (r, g) such that F has at least `rank` exactly if i >= r * f + g, 0 <= r <= 1; None without a line."""
        return None

    def __call__(self, intersection: int, formula_cells: int, bitmap_cells: int, total: int) -> float:
        """Return the score, a float within an ulp or two of the exact value."""
        rank = self.rank(intersection, formula_cells, bitmap_cells, total)
        root = float(abs(rank)) if self.power == 1 else math.sqrt(abs(rank))
        return math.copysign(root, rank)


@dataclass(frozen=True, repr=False)
class _Quotient(Score):
    """A score whose rank is a product of integers over another; where the latter is 0, so is the score."""

    name: str
    title: str
    factors: Callable[[Any, Any, int, int], Factors]
    half_plane: Callable[[Fraction, int, int], Line] | None = None
    power: int = 1
    monotone = True

    def __repr__(self) -> str:
        return f"ccx.scores.SCORES[{self.name!r}]"

    def rank(self, intersection: int, formula_cells: int, bitmap_cells: int, total: int) -> Fraction:
        above, below = self.factors(intersection, formula_cells, bitmap_cells, total)
        denominator = math.prod(below)
        return Fraction(math.prod(above), denominator) if denominator else Fraction(0)

    def approximate(
        self, intersections: IntArray, formula_cells: IntArray, bitmap_cells: int, total: int
    ) -> FloatArray:
        kind = np.int64 if total < _SMALL else object
        i, f = intersections.astype(kind, copy=False), formula_cells.astype(kind, copy=False)
        above, below = (
            functools.reduce(operator.mul, (np.asarray(factor).astype(np.float64) for factor in factors))
            for factors in self.factors(i, f, bitmap_cells, total)
        )
        below = np.broadcast_to(below, intersections.shape)
        return np.divide(above, below, out=np.zeros(intersections.shape), where=below != 0)

    def places(self, intersections: IntArray, formula_cells: IntArray, bitmap_cells: int, total: int) -> IntArray:
        if not intersections.size:
            return np.zeros(0, np.int64)
        above, below = (
            np.broadcast_to(functools.reduce(operator.mul, factors), intersections.shape).tolist()
            for factors in self.factors(intersections.astype(object), formula_cells.astype(object), bitmap_cells, total)
        )
        # Fractions of denominators below 2**k differ by more than 2**(-2 k), if at all: so do these floors, by 1.
        shift = 2 * max(below).bit_length()
        keys = [(x << shift) // y if y else 0 for x, y in zip(above, below, strict=True)]
        place_of = {key: place for place, key in enumerate(sorted(set(keys), reverse=True))}
        return np.array([place_of[key] for key in keys], np.int64)

    def line(self, rank: Fraction, bitmap_cells: int, total: int) -> Line | None:
        return None if self.half_plane is None else self.half_plane(rank, bitmap_cells, total)


@dataclass(frozen=True)
class Custom(Score):
    """A score of your own.

    Formulas are ordered by the float64 that `function` returns: they tie exactly where those are equal. (A length
    penalty multiplies the exact value of that float.)

    Parameters
    ----------
    function
        Called with float64 arrays i = |F and B| and f = |F| of one shape and the numbers |B| and all valid cells;
        returns the scores, finite and of the same shape. It is only asked about i > 0; counts up to 2**53 are exact.
    name
        What settings and tables call it; the function's name by default. A run folder knows no more of it.
    monotone
        True declares that, wherever the score is above 0, a further cell of B in F never lowers it,
        s(i + 1, f + 1) >= s(i, f), and a further cell outside B in F never raises it, s(i, f + 1) <= s(i, f), but for
        rounding errors of up to 2**-30 of the highest score. Samples are checked. The proven optimum bounds formulas by
        it; without, it counts every formula, which only few concepts permit.

    Raises
    ------
    InputError
        If `function` cannot be called, or the name is that of a built-in score or none.

    """

    function: Callable[[FloatArray, FloatArray, float, float], Any]
    name: str = ""
    monotone: bool = False
    power = 1

    def __post_init__(self) -> None:
        if not callable(self.function):
            remedy = "pass a function of (|F and B|, |F|, |B|, all cells)"
            raise InputError("function", wanted="a function", got=shown(self.function), remedy=remedy)
        given: object = self.name
        name = getattr(self.function, "__name__", "") if isinstance(given, str) and not given else given
        if not isinstance(name, str) or not name.isidentifier() or name in SCORES:
            wanted = "an identifier that is no built-in score's name"
            raise InputError("name", wanted=wanted, got=shown(name), remedy='pass name="..."')
        object.__setattr__(self, "name", name)

    @property
    def title(self) -> str:  # type: ignore[override]
        """What tables call it."""
        return self.name

    def rank(self, intersection: int, formula_cells: int, bitmap_cells: int, total: int) -> Fraction:
        """See `Score.rank`."""
        (value,) = self.approximate(np.array([intersection]), np.array([formula_cells]), bitmap_cells, total).tolist()
        return Fraction(value)

    def approximate(
        self, intersections: IntArray, formula_cells: IntArray, bitmap_cells: int, total: int
    ) -> FloatArray:
        """See `Score.approximate`; exact."""
        values = np.zeros(intersections.shape)
        asked = intersections > 0
        i, f = intersections[asked].astype(np.float64), formula_cells[asked].astype(np.float64)
        answer = np.asarray(self.function(i, f, float(bitmap_cells), float(total)))
        if answer.shape != (int(asked.sum()),) or answer.dtype.kind not in "fiub" or not np.isfinite(answer).all():
            good = answer.dtype.kind in "fiub" and answer.ndim == 1
            got = f"{answer.dtype}{list(answer.shape)}" + (", some of them not finite" if good else "")
            wanted = f"finite numbers float64[{int(asked.sum())}]"
            raise InputError("scoring", wanted=wanted, got=f"{got} of {self.name}", remedy="mend the function")
        values[asked] = answer
        return values

    def places(self, intersections: IntArray, formula_cells: IntArray, bitmap_cells: int, total: int) -> IntArray:
        """See `Score.places`."""
        values = self.approximate(intersections, formula_cells, bitmap_cells, total)
        return np.unique(-values, return_inverse=True)[1].astype(np.int64)

    def check_monotone(self, bitmap_cells: int, total: int) -> float:
        """Return what rounding errors are allowed for, > 0.

        Raises
        ------
        InputError
            If samples of the score contradict what was declared.

        """
        if not bitmap_cells:
            return math.nextafter(0, 1)
        i, e = (
            np.unique(np.linspace(first, last, _N_CHECKED).astype(np.int64))
            for first, last in ((1, bitmap_cells), (0, total - bitmap_cells))
        )
        i, e = (axis.ravel() for axis in np.meshgrid(i, e))
        highest = float(self.approximate(i, i + e, bitmap_cells, total).max(initial=0.0))
        rounding = max(highest * _ROUNDING, math.nextafter(0, 1))
        for di, de in ((1, 0), (0, 1)):
            inside = (i + di <= bitmap_cells) & (e + de <= total - bitmap_cells)
            before, after = (
                self.approximate(i[inside] + x, i[inside] + e[inside] + x + y, bitmap_cells, total)
                for x, y in ((0, 0), (di, de))
            )
            change = before - after if di else after - before
            wrong = (before > 0) & (change > rounding)
            if wrong.any():
                at = int(np.argmax(wrong))
                x, y = int(i[inside][at]), int(e[inside][at])
                kind = "in the bitmap lowers" if di else "outside the bitmap raises"
                where = f"at |F and B| = {x}, |F| = {x + y}, |B| = {bitmap_cells}"
                got = f"{self.name}: one more cell {kind} it {where}"
                raise InputError("scoring", wanted="a monotone score", got=got, remedy="declare monotone=False")
        return rounding


def _iou(i: Any, f: Any, b: int, n: int) -> Factors:  # noqa: ARG001
    return (i,), (b + f - i,)


def _f1(i: Any, f: Any, b: int, n: int) -> Factors:  # noqa: ARG001
    return (2 * i,), (b + f,)


def _precision(i: Any, f: Any, b: int, n: int) -> Factors:  # noqa: ARG001
    return (i,), (f,)


def _recall(i: Any, f: Any, b: int, n: int) -> Factors:  # noqa: ARG001
    return (i,), (b,)


def _cosine(i: Any, f: Any, b: int, n: int) -> Factors:  # noqa: ARG001
    return (i, i), (f, b)


def _mcc(i: Any, f: Any, b: int, n: int) -> Factors:
    above = i * n - f * b
    return (above, abs(above)), (f, n - f, b, n - b)


def _balanced_accuracy(i: Any, f: Any, b: int, n: int) -> Factors:
    if b == n:
        return _recall(i, f, b, n)
    return (i * (n - b) + (n - f - b + i) * b,), (2, b, n - b)


def _line_balanced_accuracy(t: Fraction, b: int, n: int) -> Line:
    if b == n:
        return Fraction(0), t * b
    return Fraction(b, n), (2 * t - 1) * b * (n - b) / n


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        _Quotient("iou", "IoU", _iou, lambda t, b, _: (t / (1 + t), t * b / (1 + t))),
        _Quotient("f1", "F1", _f1, lambda t, b, _: (t / 2, t * b / 2)),
        _Quotient("precision", "precision", _precision, lambda t, _b, _: (t, Fraction(0))),
        _Quotient("recall", "recall", _recall, lambda t, b, _: (Fraction(0), t * b)),
        _Quotient("mcc", "MCC", _mcc, power=2),
        _Quotient("cosine", "cosine", _cosine, power=2),
        _Quotient("balanced_accuracy", "balanced accuracy", _balanced_accuracy, _line_balanced_accuracy),
    )
}
"""The built-in scores by name (docs/scores.md)."""


def resolve(scoring: Any) -> Score:
    """Return the score that `scoring` names, or `scoring` itself where it is one.

    Raises
    ------
    InputError
        If it is neither.

    """
    if isinstance(scoring, Score):
        return scoring
    if isinstance(scoring, str) and scoring in SCORES:
        return SCORES[scoring]
    wanted = " or ".join(f'"{name}"' for name in SCORES) + " or a ccx.scores.Custom"
    raise InputError("scoring", wanted=wanted, got=shown(scoring), remedy="see docs/scores.md")
