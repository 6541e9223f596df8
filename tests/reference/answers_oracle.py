"""Recounts every field of every row of an answer from unpacked booleans: no atoms, no kernels, no search of ccx."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ccx
from ccx.chance import group_codes, permutations
from ccx.formula import Formula
from tests.reference.optimal_oracle import Best, every_formula
from tests.reference.scores_oracle import best_by, rank, score_of

Masks = NDArray[np.bool_]
GUIDED = ("mmesh", "cfh", "areas", "none")


@dataclass
class Asked:
    """What was asked for: masks bool[C, N, H, W], valid bool[N, H, W], bitmaps bool[rows, N, H, W], and the options."""

    masks: Masks
    valid: Masks
    bitmaps: Masks
    names: list[str]
    options: dict[str, Any]

    def option(self, name: str) -> Any:
        defaults = {
            "search": "beam",
            "length": 3,
            "top": 1,
            "length_penalty": 1.0,
            "min_iou": 0.0,
            "permutations": 0,
            "seed": 0,
        }
        return self.options.get(name, defaults.get(name))

    @property
    def scoring(self) -> str:
        scoring = self.options.get("scoring", "iou")
        return scoring if isinstance(scoring, str) else scoring.name

    @property
    def parts(self) -> list[NDArray[np.int64]]:
        """The samples that formulas are found on, and those held out."""
        every = np.arange(len(self.valid))
        fit, score = self.option("fit_samples"), self.option("test_samples")
        if fit is None and score is None:
            return [every]
        fitted = np.sort(every[fit]) if fit is not None else np.setdiff1d(every, every[score])
        return [fitted, np.sort(every[score]) if score is not None else np.setdiff1d(every, fitted)]


def mask_of(formula: Formula, asked: Asked) -> Masks:
    names, operators = formula.left_deep_parts()
    mask = asked.masks[asked.names.index(names[0])]
    for name, operator in zip(names[1:], operators, strict=True):
        other = asked.masks[asked.names.index(name)]
        mask = (mask | other, mask & other, mask & ~other)[int(operator)]
    return mask


def counted(formula: Formula, bitmap: Masks, cells: Masks, asked: Asked) -> Best:
    names, operators = formula.left_deep_parts()
    mask = mask_of(formula, asked)
    numbers = int((mask & bitmap & cells).sum()), int(((mask | bitmap) & cells).sum())
    return Best(tuple(asked.names.index(name) for name in names), tuple(map(int, operators)), *numbers)


def recount(found: ccx.Explanations, asked: Asked) -> None:
    """Raise `AssertionError` where a row contradicts the cells, another field, or what was asked for."""
    assert len(found) == len(asked.bitmaps)
    for row, bitmap in zip(found, asked.bitmaps, strict=True):
        _Recount(row, bitmap, asked).all()
    again = [ccx.Explanation.from_record(json.loads(json.dumps(record))) for record in found.to_records()]
    assert again == list(found)


class _Recount:
    def __init__(self, row: ccx.Explanation, bitmap: Masks, asked: Asked) -> None:
        self.row, self.bitmap, self.asked = row, bitmap, asked
        self.fitted = np.zeros_like(asked.valid)
        self.fitted[asked.parts[0]] = asked.valid[asked.parts[0]]
        self.b, self.n = int((bitmap & self.fitted).sum()), int(self.fitted.sum())
        self.penalty = asked.option("length_penalty")
        self.search = asked.option("search")

    def all(self) -> None:
        self.counts()
        self.order()
        self.certificate()
        self.effort()
        self.evidence()

    def rank(self, one: Best) -> Fraction:
        return rank(one, self.asked.scoring, self.b, self.n, self.penalty)

    def score(self, one: Best) -> float:
        return score_of(one, self.asked.scoring, self.b, self.n, self.penalty)

    def counts(self) -> None:
        row = self.row
        assert row.bitmap_cells == self.b
        if row.formula is None:
            assert (row.iou, row.score, row.intersection, row.union, row.formula_cells) == (0.0, 0.0, 0, 0, 0)
            assert row.status != "explained"
            assert (row.status in ("no_overlap", "below_min_iou")) == (self.b > 0)
            assert row.status != "below_min_iou" or self.asked.option("min_iou") > 0
            assert (row.alternatives, row.chance, row.held_out) == ((), None, None)
            return
        assert row.status == "explained"
        one = counted(row.formula, self.bitmap, self.fitted, self.asked)
        assert (row.intersection, row.union) == (one.intersection, one.union)
        assert row.formula_cells == int((mask_of(row.formula, self.asked) & self.fitted).sum())
        assert row.score > 0 or self.rank(one) < Fraction(1, 10**300)
        assert math.isclose(row.score, self.score(one), rel_tol=1e-12)
        for other in (row, *row.alternatives):
            again = counted(other.formula, self.bitmap, self.fitted, self.asked)
            assert (other.intersection, other.union) == (again.intersection, again.union)
            assert other.iou == other.intersection / other.union >= self.asked.option("min_iou")
            assert other.intersection > 0
            assert other.formula.length <= self.asked.option("length")
            allowed = self.asked.option("only")
            assert allowed is None or set(other.formula.left_deep_parts()[0]) <= set(allowed)

    def order(self) -> None:
        row = self.row
        if row.formula is None:
            return
        assert len(row.alternatives) < self.asked.option("top")
        ranked = [counted(one.formula, self.bitmap, self.fitted, self.asked) for one in (row, *row.alternatives)]
        keys = [
            (-self.rank(one), len(one.concepts), one.operators.count(2), one.concepts, one.operators) for one in ranked
        ]
        if self.asked.option("published"):  # its ties are those of floats, and of chance
            assert [-float(key[0]) for key in keys] == sorted((-float(key[0]) for key in keys), reverse=True)
            return
        assert keys == sorted(set(keys))
        assert all(key[0] < 0 for key in keys)

    def certificate(self) -> None:
        row = self.row
        if self.search != "optimal":
            assert (row.optimal, row.upper_bound, row.gap, row.evaluations) == (False, None, None, 0)
        elif row.optimal:
            assert (row.upper_bound, row.gap) == (row.score, 0.0)
        else:
            assert self.asked.option("time_limit") is not None or self.asked.option("evaluation_limit") is not None
            assert row.upper_bound is None or row.upper_bound >= row.score
        if self.asked.option("published"):
            return
        cells = self.fitted.ravel()
        masks, bitmap = self.asked.masks.reshape(len(self.asked.masks), -1)[:, cells], self.bitmap.ravel()[cells]
        allowed = self.asked.option("only")
        allowed = None if allowed is None else [self.asked.names.index(name) for name in allowed]
        every = every_formula(masks, bitmap, self.asked.option("length"), allowed)
        good = [one for one in every if one.intersection / one.union >= self.asked.option("min_iou")]
        best = best_by(good, self.asked.scoring, self.b, self.n, self.asked.option("top"), self.penalty)
        highest = self.score(best[0]) if best else 0.0
        assert row.score <= highest * (1 + 1e-12)
        if row.upper_bound is not None:
            assert row.upper_bound >= highest * (1 - 1e-12)
        if row.optimal:
            shown = [] if row.formula is None else [row, *row.alternatives]
            assert [counted(one.formula, self.bitmap, self.fitted, self.asked) for one in shown] == best
        scored = best_by(every, self.asked.scoring, self.b, self.n, 1)
        assert row.status != "below_min_iou" or scored
        assert row.status != "no_overlap" or not scored or self.asked.scoring in ("mcc", "small_and_pure", "kappa")

    def effort(self) -> None:
        row = self.row
        assert min(row.visited, row.expanded, row.estimated, row.evaluations) >= 0
        assert row.estimated == 0 or self.search in GUIDED[:3]
        if self.search == "optimal":
            assert row.evaluations >= row.visited
        if self.asked.option("length") == 1 or not self.b:
            assert (row.visited, row.expanded, row.estimated, row.evaluations) == (0, 0, 0, 0)

    def evidence(self) -> None:
        row, parts, null = self.row, self.asked.parts, self.asked.option("permutations")
        assert (row.held_out is not None) == (len(parts) == 2 and row.formula is not None)
        if row.formula is None:
            return
        assert (row.chance is not None) == (null > 0)
        if row.chance is not None:
            best = counted(row.formula, self.bitmap, self.fitted, self.asked)
            self.null_of_searches(row.chance, self.rank(best), row.score)
        if row.held_out is None:
            return
        held = row.held_out
        there = self.asked.valid[parts[1]]
        mask, bitmap = mask_of(row.formula, self.asked)[parts[1]], self.bitmap[parts[1]]
        b, n = int((bitmap & there).sum()), int(there.sum())
        names, operators = row.formula.left_deep_parts()

        def of(permuted: Masks) -> Best:
            numbers = int((mask & permuted & there).sum()), int(((mask | permuted) & there).sum())
            return Best(tuple(map(self.asked.names.index, names)), tuple(map(int, operators)), *numbers)

        one = of(bitmap)
        assert (held.intersection, held.union, held.bitmap_cells) == (one.intersection, one.union, b)
        assert held.formula_cells == int((mask & there).sum())
        assert held.iou == (one.intersection / one.union if one.union else 0.0)
        signed = rank(one, self.asked.scoring, b, n, self.penalty)
        root = math.copysign(math.sqrt(abs(signed)), signed)
        assert math.isclose(held.score, root, rel_tol=1e-12, abs_tol=1e-15)
        assert (held.chance is not None) == (null > 0)
        if held.chance is not None:
            ranks = []
            for order in self.orders(parts[1]):
                permuted = bitmap[order]
                n_cells = int((permuted & there).sum())
                ranks.append(rank(of(permuted), self.asked.scoring, n_cells, n, self.penalty))
            check_chance(held.chance, ranks, signed, held.score)

    def orders(self, samples: NDArray[np.int64]) -> NDArray[np.int32]:
        codes = group_codes(self.asked.option("groups"), len(self.asked.valid))[samples]
        return permutations(codes, self.asked.option("permutations"), self.asked.option("seed"))

    def null_of_searches(self, chance: Any, observed: Fraction, score: float) -> None:
        """Search every permuted bitmap anew, as if somebody had given it."""
        samples = self.asked.parts[0]
        own = self.bitmap[samples]
        concepts = ccx.Concepts.from_masks(
            self.asked.masks[:, samples], self.asked.names, valid=self.asked.valid[samples]
        )
        left_out = ("permutations", "seed", "groups", "fit_samples", "test_samples")
        options = {name: value for name, value in self.asked.options.items() if name not in left_out}
        permuted = np.stack([own[order] for order in self.orders(samples)])
        ranks = []
        for one, bitmap in zip(ccx.explain_bitmaps(permuted, concepts, **options), permuted, strict=True):
            if one.formula is None:
                ranks.append(Fraction(0))
                continue
            assert one.iou >= self.asked.option("min_iou")
            best = Best((0,) * one.formula.length, (), one.intersection, one.union)
            n_cells = int((bitmap & self.asked.valid[samples]).sum())
            ranks.append(rank(best, self.asked.scoring, n_cells, self.n, self.penalty))
        check_chance(chance, ranks, observed, score)


def check_chance(chance: Any, ranks: list[Fraction], observed: Fraction, score: float) -> None:
    scores = [math.copysign(math.sqrt(abs(one)), one) for one in ranks]
    assert chance.permutations == len(ranks)
    assert math.isclose(chance.mean, statistics.fmean(scores), rel_tol=1e-9, abs_tol=1e-12)
    assert math.isclose(chance.maximum, max(scores), rel_tol=1e-9, abs_tol=1e-12)
    assert chance.p == (1 + sum(one >= observed for one in ranks)) / (1 + len(ranks))
    if chance.z is not None and len(ranks) > 1:
        deviation = statistics.stdev(scores)
        assert deviation < 1e-9 or math.isclose(chance.z, (score - chance.mean) / deviation, rel_tol=1e-6, abs_tol=1e-9)
