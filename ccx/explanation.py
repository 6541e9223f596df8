"""One `Explanation`: what ccx found for one unit and range, as values, as a record, and checked against itself."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import NoneType
from typing import Any

from ccx.evidence import SLACK, Chance, HeldOut, contradictions_of_counts, is_iou
from ccx.formula import Formula, parse
from ccx.store.records import Kinds, bad_field, checked_record


class Status(StrEnum):
    """Why there is a formula, or why there is none."""

    EXPLAINED = "explained"
    SILENT = "silent"  # the unit has no activation left to cluster
    CONSTANT = "constant"  # all activations of the unit are equal
    SINGLE_VALUE = "single_value"  # the cluster has one value, and nothing lies strictly inside: give ranges
    EMPTY = "empty"  # no cell lies in the range
    NO_OVERLAP = "no_overlap"  # no formula that was met shares a cell and has a score above 0
    BELOW_MIN_IOU = "below_min_iou"  # formulas with a score above 0 were met, but none of the IoU that was asked for


@dataclass(frozen=True, slots=True)
class Candidate:
    """A formula that came close to the best one.

    Attributes
    ----------
    formula
        In canonical form.
    iou, intersection, union
        As in `Explanation`.

    """

    formula: Formula
    iou: float
    intersection: int
    union: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The formula that describes best where one unit's activation lies in one range.

    Attributes
    ----------
    unit
        Index of the unit; of the bitmap, when bitmaps were given.
    range_index
        Number of the range among the unit's ranges, from 1, ascending; 1 for bitmaps.
    range
        The open interval of activation, which may end at infinity; None when there is none, as for given bitmaps.
    formula
        In canonical form; None unless `status` is ``explained``.
    iou
        ``intersection / union``; 0.0 without a formula.
    iou_gain
        `iou` minus the bitmap's share of all cells, which is the IoU of a formula that is always true: so that ranges
        of different size compare. None without a formula, and where an older ccx stored the result.
    intersection, union
        |F ∧ B| and |F ∨ B| in cells.
    bitmap_cells, formula_cells
        |B| and |F|.
    status
        Why there is a formula or none.
    visited
        Number of formulas that the search evaluated exactly.
    expanded
        Number of formulas that it extended, by all concepts and operators.
    estimated
        Number of formulas that it gave an estimate first; 0 for searches without estimates.
    optimal
        True where no formula that was asked for (length, names, least IoU) precedes it (`docs/search.md`), and that is
        proven; without a formula, that there is none.
    upper_bound
        Proven bound of the score of any formula that was asked for; None where nothing is proven.
    evaluations
        Number of formulas that a proof bounded or counted; 0 without proof.
    alternatives
        The next best formulas, best first, when more than one was asked for.
    score
        What the search maximised (``settings["scoring"]``, `ccx.scores`), times ``penalty ** (length - 1)``; `iou`
        by default.
    chance
        The score beside those that the search reaches on permuted bitmaps; None where that was not asked for, or
        there is no formula.
    held_out
        The formula on samples that it was not found on; None where no samples were held out, or there is no formula.

    """

    unit: int
    range_index: int
    range: tuple[float, float] | None
    formula: Formula | None
    iou: float
    iou_gain: float | None
    intersection: int
    union: int
    bitmap_cells: int
    formula_cells: int
    status: Status
    visited: int
    expanded: int = 0
    estimated: int = 0
    optimal: bool
    upper_bound: float | None = None
    evaluations: int = 0
    alternatives: tuple[Candidate, ...] = ()
    score: float
    chance: Chance | None = None
    held_out: HeldOut | None = None

    @property
    def cluster(self) -> int:
        """Deprecated: ``range_index - 1``."""
        warnings.warn("cluster is called range_index now, and counts from 1", DeprecationWarning, stacklevel=2)
        return self.range_index - 1

    @property
    def gap(self) -> float | None:
        """How far the score may be from the best: 0.0 where it is proven optimal, None where nothing is proven."""
        return None if self.upper_bound is None else self.upper_bound - self.score

    def to_record(self) -> dict[str, Any]:
        """Return the explanation as JSON-able values (``docs/results.md``)."""
        return {
            "unit": int(self.unit),
            "range_index": int(self.range_index),
            "range": None if self.range is None else [_written_end(end) for end in self.range],
            "formula": None if self.formula is None else str(self.formula),
            "iou": float(self.iou),
            "iou_gain": None if self.iou_gain is None else float(self.iou_gain),
            "score": float(self.score),
            "intersection": int(self.intersection),
            "union": int(self.union),
            "bitmap_cells": int(self.bitmap_cells),
            "formula_cells": int(self.formula_cells),
            "status": str(self.status),
            "visited": int(self.visited),
            "expanded": int(self.expanded),
            "estimated": int(self.estimated),
            "optimal": bool(self.optimal),
            "upper_bound": None if self.upper_bound is None else float(self.upper_bound),
            "evaluations": int(self.evaluations),
            "alternatives": [
                {
                    "formula": str(other.formula),
                    "iou": float(other.iou),
                    "intersection": int(other.intersection),
                    "union": int(other.union),
                }
                for other in self.alternatives
            ],
            "chance": None if self.chance is None else self.chance.to_record(),
            "held_out": None if self.held_out is None else self.held_out.to_record(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Explanation:
        """Return the explanation whose `to_record` is `record`.

        Raises
        ------
        InputError
            When fields are missing, unknown or of another type, or contradict each other (`check`).

        """
        values = checked_record(record, _RECORD)
        if values["status"] not in set(Status):
            raise bad_field(field="status", wanted=f"one of {', '.join(Status)}", got=values["status"])
        item = cls(
            **values
            | {
                "range": None if values["range"] is None else _read_range(values["range"]),
                "formula": None if values["formula"] is None else parse(values["formula"]),
                "status": Status(values["status"]),
                "alternatives": tuple(_read_candidate(other) for other in values["alternatives"]),
                "chance": None if values["chance"] is None else Chance.from_record(values["chance"]),
                "held_out": None if values["held_out"] is None else HeldOut.from_record(values["held_out"]),
            }
        )
        item.check()
        return item

    def check(self) -> None:
        """Raise `InputError` where fields contradict each other: counts, IoU, status and what hangs on them."""
        for field, wanted, got in _contradictions(self):
            raise bad_field(field, wanted, got)


_CANDIDATE: Kinds = {
    "formula": (str,),
    "iou": (float, int),
    "intersection": (int,),
    "union": (int,),
}
_RECORD: Kinds = {
    "unit": (int,),
    "range_index": (int,),
    "range": (list, NoneType),
    "formula": (str, NoneType),
    "iou": (float, int),
    "iou_gain": (float, int, NoneType),
    "score": (float, int),
    "intersection": (int,),
    "union": (int,),
    "bitmap_cells": (int,),
    "formula_cells": (int,),
    "status": (str,),
    "visited": (int,),
    "expanded": (int,),
    "estimated": (int,),
    "optimal": (bool,),
    "upper_bound": (float, int, NoneType),
    "evaluations": (int,),
    "alternatives": (list,),
    "chance": (dict, NoneType),
    "held_out": (dict, NoneType),
}


def _written_end(end: float) -> float | str:
    """Return an end of a range; JSON has no infinity."""
    return str(float(end)) if math.isinf(end) else float(end)


def _read_range(ends: list[Any]) -> tuple[float, float]:
    if len(ends) != 2:
        raise bad_field(field="range", wanted="two ends", got=ends)
    lower, upper = (float(end) if end in ("inf", "-inf") else _read_number(end) for end in ends)
    return lower, upper


def _read_number(end: object) -> float:
    return checked_record({"range": end}, {"range": (float, int)})["range"]  # type: ignore[no-any-return]


def _read_candidate(record: object) -> Candidate:
    values = checked_record(record, _CANDIDATE)
    return Candidate(**values | {"formula": parse(values["formula"])})


def _contradictions(item: Explanation) -> Iterator[tuple[str, str, object]]:
    """Yield (field, what it should be, what it is) of each that the other fields exclude."""
    least = {"unit": 0, "range_index": 1, "visited": 0, "expanded": 0, "estimated": 0, "evaluations": 0}
    for field, lowest in least.items():
        if getattr(item, field) < lowest:
            yield field, f"a number of at least {lowest}", getattr(item, field)
    if item.range is not None and not item.range[0] <= item.range[1]:
        yield "range", "an ascending range", item.range
    if (item.formula is not None) != (item.status is Status.EXPLAINED):
        yield "status", f"{Status.EXPLAINED} with a formula, another without", str(item.status)
    yield from _contradictions_of_formula(item) if item.formula is not None else _contradictions_without(item)
    if item.upper_bound is not None:
        slack = SLACK * max(1.0, abs(item.upper_bound))
        if item.score > item.upper_bound + slack:
            yield "upper_bound", f"at least the score {item.score}", item.upper_bound
        if item.optimal and item.score < item.upper_bound - slack:
            yield "upper_bound", f"the score {item.score}, which is optimal", item.upper_bound


def _contradictions_of_formula(item: Explanation) -> Iterator[tuple[str, str, object]]:
    yield from contradictions_of_counts(item)
    if item.iou_gain is not None:
        share = item.iou - item.iou_gain
        if not -SLACK <= share <= item.bitmap_cells / item.union + SLACK:
            yield "iou_gain", f"the IoU {item.iou} minus the share of {item.bitmap_cells} cells", item.iou_gain
    known = {str(item.formula)}
    for other in item.alternatives:
        text = str(other.formula)
        if text in known:
            yield "alternatives", "each formula once", text
        known.add(text)
        if not 0 <= other.intersection <= item.bitmap_cells <= other.union:
            got = f"{other.intersection} and {other.union} of {text}"
            yield "alternatives", f"cells of a formula beside {item.bitmap_cells} of the bitmap", got
        if not is_iou(other.iou, other.intersection, other.union):
            yield "alternatives", f"the IoU {other.intersection} / {other.union}", other.iou
    if item.chance is not None:
        yield from item.chance.contradictions(item.score)
    if item.held_out is not None:
        yield from item.held_out.contradictions()


def _contradictions_without(item: Explanation) -> Iterator[tuple[str, str, object]]:
    for field in ("intersection", "iou", "score", "formula_cells"):
        if getattr(item, field) != 0:
            yield field, "0 without a formula", getattr(item, field)
    for field, nothing in (("iou_gain", None), ("alternatives", ()), ("chance", None), ("held_out", None)):
        if getattr(item, field) != nothing:
            yield field, "nothing without a formula", getattr(item, field)
    if item.union not in (0, item.bitmap_cells):
        yield "union", "0 without a formula", item.union
    has_cells = item.status in (Status.NO_OVERLAP, Status.BELOW_MIN_IOU)
    if item.bitmap_cells < 0 or (item.bitmap_cells > 0) != has_cells:
        yield "bitmap_cells", f"{'some' if has_cells else '0'} where the status is {item.status}", item.bitmap_cells
