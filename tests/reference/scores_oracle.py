"""Scores from the four cells of a confusion matrix, exactly, and brute force over formulas by any of them.

Nothing is shared with ccx.scores: a score is given as its square with its sign, a `Fraction`, which orders as it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from heapq import nsmallest

import numpy as np

from ccx.scores import Custom
from tests.reference.optimal_oracle import Best

Measure = Callable[[int, int, int, int], Fraction]
"""(true positives, false positives, false negatives, true negatives) -> score, squared with its sign."""


def over(above: int, below: int) -> Fraction:
    return Fraction(above, below) if below else Fraction(0)


def squared(score: Fraction) -> Fraction:
    return score * abs(score)


def iou(tp, fp, fn, tn):
    return squared(over(tp, tp + fp + fn))


def f1(tp, fp, fn, tn):
    precision, recall = over(tp, tp + fp), over(tp, tp + fn)
    return squared(2 * precision * recall / (precision + recall) if precision + recall else Fraction(0))


def precision(tp, fp, fn, tn):
    return squared(over(tp, tp + fp))


def recall(tp, fp, fn, tn):
    return squared(over(tp, tp + fn))


def cosine(tp, fp, fn, tn):
    return over(tp, tp + fp) * over(tp, tp + fn)


def mcc(tp, fp, fn, tn):
    difference = tp * tn - fp * fn
    return over(difference * abs(difference), (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))


def balanced_accuracy(tp, fp, fn, tn):
    if not fp + tn:
        return squared(over(tp, tp + fn))
    return squared((over(tp, tp + fn) + over(tn, tn + fp)) / 2)


MEASURES: dict[str, Measure] = {
    "iou": iou,
    "f1": f1,
    "precision": precision,
    "recall": recall,
    "mcc": mcc,
    "cosine": cosine,
    "balanced_accuracy": balanced_accuracy,
}


def lift(i, f, b, n):
    return i * n / (f * b)


def kappa(i, f, b, n):
    chance = (f * b + (n - f) * (n - b)) / n**2
    agreement = (n - f - b + 2 * i) / n
    return np.where(chance < 1, (agreement - chance) / np.where(chance < 1, 1 - chance, 1), 0)


def tenths(i, f, b, n):
    """Few different scores: ties everywhere."""
    return np.floor(10 * i / (f + b - i)) / 10


def small_and_pure(i, f, b, n):
    """Not monotone: best where the formula holds in a fifth of the cells."""
    return i / f - np.abs(f / n - 0.2)


CUSTOM = {
    "lift": Custom(lift, monotone=True),
    "kappa": Custom(kappa, monotone=True),
    "tenths": Custom(tenths, monotone=True),
    "small_and_pure": Custom(small_and_pure),
}


def measure_of(name: str) -> Measure:
    if name in MEASURES:
        return MEASURES[name]
    function = CUSTOM[name].function

    def measure(tp: int, fp: int, fn: int, tn: int) -> Fraction:
        if not tp:
            return Fraction(0)
        counts = np.array([float(tp)]), np.array([float(tp + fp)])
        return squared(Fraction(float(function(*counts, float(tp + fn), float(tp + fp + fn + tn))[0])))

    return measure


def scoring_of(name: str):
    return name if name in MEASURES else CUSTOM[name]


EVERY = (*MEASURES, *CUSTOM)


def rank(one: Best, name: str, bitmap_cells: int, n_cells: int, penalty: float = 1.0) -> Fraction:
    """The score of a formula with its length penalty, squared with its sign."""
    return _rank(name, one.intersection, one.union, bitmap_cells, n_cells, len(one.concepts), penalty)


@lru_cache(1 << 16)  # few different counts, many formulas
def _rank(name: str, hits: int, union: int, bitmap_cells: int, n_cells: int, length: int, penalty: float) -> Fraction:
    value = measure_of(name)(hits, union - bitmap_cells, bitmap_cells - hits, n_cells - union)
    return value * Fraction(penalty) ** (2 * (length - 1))


def best_by(
    found: list[Best], name: str, bitmap_cells: int, n_cells: int, top: int, penalty: float = 1.0
) -> list[Best]:
    """The first `top` formulas of a score above 0 in tie order."""
    ranked = [(-rank(one, name, bitmap_cells, n_cells, penalty), one) for one in found]
    above = [(key, one) for key, one in ranked if key < 0]

    def order(pair: tuple[Fraction, Best]) -> tuple[Fraction, int, int, tuple[int, ...], tuple[int, ...]]:
        return pair[0], len(pair[1].concepts), pair[1].operators.count(2), *pair[1][:2]

    return [one for _, one in nsmallest(top, above, order)]


def score_of(one: Best, name: str, bitmap_cells: int, n_cells: int, penalty: float = 1.0) -> float:
    return math.sqrt(rank(one, name, bitmap_cells, n_cells, penalty))
