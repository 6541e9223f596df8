"""What speaks for an explanation beside its score: chance, and samples that it was not found on (docs/chance.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
