"""What a search is asked for, checked once."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ccx.checks import is_between, shown
from ccx.errors import InputError
from ccx.scores import SCORES, Score, resolve

MAX_LENGTH = 64
_MOST = 2**31 - 1  # formulas that a search keeps; kernels count them in 64 bits
_INTEGERS = (
    ("length", 1, MAX_LENGTH),
    ("beam", 1, _MOST),
    ("top", 1, _MOST),
    ("candidates", 1, _MOST),
    ("evaluation_limit", 0, 2**62),
)


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Options of a search.

    Attributes
    ----------
    length
        Longest formula, in concepts (1 = Network Dissection, 3 = Compositional Explanations).
    beam
        Formulas that are kept and extended at each level; the first level extends 2 * beam concepts.
    candidates
        Only so many concepts, the best by themselves, are used to extend formulas; None = all. Those without
        a score come last, in their order. (The first published system calls this ``BEAM_SEARCH_LIMIT``.)
    length_penalty
        What is maximised is score * length_penalty ** (length - 1). (``FORMULA_COMPLEXITY_PENALTY``
        there.) Formulas are compared with the exact rational value of this float.
    top
        How many of the best formulas to return.
    min_iou
        Only formulas whose IoU, as `Found.iou` rounds it, is at least this are found, whatever the score: the best of
        these. (A beam is extended as if there were no such condition.)
    scoring
        A score of `ccx.scores`, or its name.
    time_limit, evaluation_limit
        Seconds a bitmap, or formulas bounded or counted, after which `optimal_search` gives up a proof and returns the
        best it has, with an upper bound; None = never, 0 = at once: the beam's answer. Both count from the beginning of
        the search, the beam included, which always ends; compiling kernels is no part of it. The search looks at them
        between two steps, which no limit cuts short. Results under an `evaluation_limit` are the same in every run.

    Raises
    ------
    InputError
        If an option is out of its range.

    """

    length: int = 3
    beam: int = 5
    candidates: int | None = None
    length_penalty: float = 1.0
    top: int = 1
    min_iou: float = 0.0
    scoring: Score = SCORES["iou"]
    time_limit: float | None = None
    evaluation_limit: int | None = None

    def __post_init__(self) -> None:
        for name, least, most in _INTEGERS:
            value = getattr(self, name)
            if value is not None or name in ("length", "beam", "top"):
                object.__setattr__(self, name, _integer(name, value, least, most))
        if self.time_limit is not None:
            if not (isinstance(self.time_limit, Real) and bool(0 <= self.time_limit <= 1e300)):
                remedy = "leave it out for a proof without a limit"
                raise InputError("time_limit", wanted="None or seconds >= 0", got=shown(self.time_limit), remedy=remedy)
            object.__setattr__(self, "time_limit", float(self.time_limit))
        _check_number("length_penalty", self.length_penalty, "0 < length_penalty <= 1", zero=False)
        _check_number("min_iou", self.min_iou, "0 <= min_iou <= 1", zero=True)
        object.__setattr__(self, "length_penalty", float(self.length_penalty))  # NumPy's numbers are no Fraction
        object.__setattr__(self, "min_iou", float(self.min_iou))
        object.__setattr__(self, "scoring", resolve(self.scoring))

    @property
    def limits(self) -> dict[str, float]:
        """Those limits that are set, by name."""
        limits = {"time_limit": self.time_limit, "evaluation_limit": self.evaluation_limit}
        return {name: limit for name, limit in limits.items() if limit is not None}


def _integer(argument: str, value: Any, least: int, most: int) -> int:
    wanted = f"an integer >= {least}" if most >= _MOST else f"an integer from {least} to {most}"
    try:
        number = operator.index(value)
    except (TypeError, ValueError):
        number = least - 1
    if not least <= number <= most:
        raise InputError(argument, wanted=wanted, got=shown(value), remedy="see the documentation of explain")
    return number


def _check_number(argument: str, value: Any, wanted: str, *, zero: bool) -> None:
    good = is_between(value, 0, 1) or (isinstance(value, Real) and bool(value == 1 or (zero and value == 0)))
    if not good:
        raise InputError(argument, wanted=wanted, got=shown(value), remedy="see the documentation of explain")
