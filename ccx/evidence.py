"""What speaks for an explanation beside its score: chance, and samples that it was not found on (docs/chance.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

from ccx.store.records import Kinds, checked_record

EVIDENCE_COLUMNS = ("null_mean", "null_maximum", "z", "p", "held_out_iou", "held_out_score", "held_out_p")
EVIDENCE_HEADINGS = ("null mean", "null max", "z", "p", "held out", "held out p")


@dataclass(frozen=True, slots=True)
class Chance:
    """A score beside the scores that permuted bitmaps reached.

    Attributes
    ----------
    null
        Number r of permutations.
    mean, maximum
        Of their scores.
    z
        ``(score - mean) / sd``, sd the standard deviation of their scores (n − 1 degrees of freedom); None where
        that is 0 or r is 1.
    p
        Permutation p-value, ``(1 + number of permuted scores >= score) / (1 + r)`` (Phipson and Smyth 2010);
        scores are compared exactly.

    """

    null: int
    mean: float
    maximum: float
    z: float | None
    p: float

    @property
    def resolution(self) -> float:
        """The smallest p-value that so many permutations can give, and the step between two: ``1 / (1 + r)``."""
        return 1 / (1 + self.null)

    def to_record(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "null": int(self.null),
            "mean": float(self.mean),
            "maximum": float(self.maximum),
            "z": None if self.z is None else float(self.z),
            "p": float(self.p),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Chance:
        """Undo `to_record`; raises `InputError`."""
        return cls(**checked_record(record, _CHANCE))

    def contradictions(self, score: float) -> Iterator[tuple[str, str, object]]:
        """Yield (field, what it should be, what it is) of each that the others, and the score, exclude."""
        if self.null < 1:
            yield "chance", "at least one permutation", self.null
            return
        n_reached = round(self.p * (1 + self.null)) - 1
        if not 0 <= n_reached <= self.null or self.p != (1 + n_reached) / (1 + self.null):
            yield "chance", f"a p-value of {self.null} permutations", self.p
        slack = SLACK * max(1.0, abs(self.maximum), abs(score))
        if self.mean > self.maximum + slack:
            yield "chance", f"a mean of at most the maximum {self.maximum}", self.mean
        if n_reached > 0 and self.maximum < score - slack:
            yield "chance", f"{n_reached} scores that reach {score}", f"their maximum {self.maximum}"
        if self.z is not None and (self.null == 1 or self.z * (score - self.mean) < -slack):
            yield "chance", f"a z of the score {score} beside the mean {self.mean}", self.z


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A formula that was found on some samples, scored on others.

    Attributes
    ----------
    score, iou, intersection, union, bitmap_cells, formula_cells
        As in `ccx.Explanation`, on the samples held out.
    chance
        The formula's score there beside its scores with the bitmap's samples permuted; None without ``null=``.

    """

    score: float
    iou: float
    intersection: int
    union: int
    bitmap_cells: int
    formula_cells: int
    chance: Chance | None = None

    def to_record(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "score": float(self.score),
            "iou": float(self.iou),
            "intersection": int(self.intersection),
            "union": int(self.union),
            "bitmap_cells": int(self.bitmap_cells),
            "formula_cells": int(self.formula_cells),
            "chance": None if self.chance is None else self.chance.to_record(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> HeldOut:
        """Undo `to_record`; raises `InputError`."""
        values = checked_record(record, _HELD_OUT)
        chance = values["chance"]
        return cls(**values | {"chance": None if chance is None else Chance.from_record(chance)})

    def contradictions(self) -> Iterator[tuple[str, str, object]]:
        """Yield (field, what it should be, what it is) of each that the others exclude."""
        for _, wanted, got in contradictions_of_counts(self):
            yield "held_out", wanted, got
        if self.chance is not None:
            for _, wanted, got in self.chance.contradictions(self.score):
                yield "held_out", wanted, got


SLACK = 1e-12  # between sums and products in floating point that are equal in exact arithmetic


def contradictions_of_counts(item: Any) -> Iterator[tuple[str, str, object]]:
    """Yield (field, what it should be, what it is) of counts, and their IoU, that exclude each other."""
    if not 0 <= item.intersection <= min(item.bitmap_cells, item.formula_cells):
        most = min(item.bitmap_cells, item.formula_cells)
        yield "intersection", f"cells within the {most} of bitmap or formula", item.intersection
    union = item.bitmap_cells + item.formula_cells - item.intersection
    if item.union != union:
        yield "union", f"the cells of bitmap and formula, {union}", item.union
    if not is_iou(item.iou, item.intersection, item.union):
        yield "iou", f"intersection / union, {item.intersection} / {item.union}", item.iou


def is_iou(iou: float, intersection: int, union: int) -> bool:
    """Tell whether a float is the IoU of these counts; 0 where the union is empty."""
    return math.isclose(iou, intersection / union if union else 0.0, rel_tol=SLACK)


_CHANCE: Kinds = {
    "null": (int,),
    "mean": (float, int),
    "maximum": (float, int),
    "z": (float, int, NoneType),
    "p": (float, int),
}
_HELD_OUT: Kinds = {
    "score": (float, int),
    "iou": (float, int),
    "intersection": (int,),
    "union": (int,),
    "bitmap_cells": (int,),
    "formula_cells": (int,),
    "chance": (dict, NoneType),
}


def evidence_columns(chance: Chance | None, held_out: HeldOut | None) -> dict[str, float]:
    """Return the numbers of `EVIDENCE_COLUMNS`, NaN where there is none."""
    numbers = dict.fromkeys(EVIDENCE_COLUMNS, math.nan)
    if chance is not None:
        z = math.nan if chance.z is None else chance.z
        numbers |= {"null_mean": chance.mean, "null_maximum": chance.maximum, "z": z, "p": chance.p}
    if held_out is not None:
        numbers |= {"held_out_iou": held_out.iou, "held_out_score": held_out.score}
        if held_out.chance is not None:
            numbers["held_out_p"] = held_out.chance.p
    return numbers


def evidence_cells(chance: Chance | None, held_out: HeldOut | None) -> dict[str, str]:
    """Return what tables show under `EVIDENCE_HEADINGS`, as far as it is there; held out is the IoU."""
    cells = {}
    if chance is not None:
        cells = {"null mean": f"{chance.mean:.3f}", "null max": f"{chance.maximum:.3f}", "p": f"{chance.p:.3g}"}
        if chance.z is not None:
            cells["z"] = f"{chance.z:.1f}"
    if held_out is not None:
        cells["held out"] = f"{held_out.iou:.3f}"
        if held_out.chance is not None:
            cells["held out p"] = f"{held_out.chance.p:.3g}"
    return cells
