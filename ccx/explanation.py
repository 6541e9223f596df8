"""One `Explanation`: what ccx found for one unit and range, as values, as a record, and checked against itself."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from ccx.evidence import SLACK, Chance, HeldOut, contradictions_of_counts, is_iou
from ccx.formula import Formula, parse
from ccx.store.records import Codec, Column, Field, Record, bad_field, checked, documented, out_of_bounds, read_number


class Status(StrEnum):
    """Why there is a formula, or why there is none."""

    EXPLAINED = "explained"
    SILENT = "silent"  # the unit has no activation left to cluster
    CONSTANT = "constant"  # all activations of the unit are equal
    SINGLE_VALUE = "single_value"  # the cluster has one value, and nothing lies strictly inside: give ranges
    EMPTY = "empty"  # no cell lies in the range
    NO_OVERLAP = "no_overlap"  # no formula that was met shares a cell and has a score above 0
    BELOW_MIN_IOU = "below_min_iou"  # formulas with a score above 0 were met, but none of the IoU that was asked for


def _written_end(end: float) -> float | str:
    """Return an end of a range; JSON has no infinity."""
    return str(float(end)) if math.isinf(end) else float(end)


def _read_range(name: str, ends: Any) -> tuple[float, float]:
    if len(checked(list, name, ends)) != 2:
        raise bad_field(name, "two ends", ends)
    lower, upper = (float(end) if end in ("inf", "-inf") else read_number(name, end) for end in ends)
    return lower, upper


_END = {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf"]}]}
_RANGE = Codec(
    {"type": "array", "minItems": 2, "maxItems": 2, "items": _END},
    lambda ends: [_written_end(end) for end in ends],
    _read_range,
)
_ENDS = (Column("lower", lambda ends: ends[0]), Column("upper", lambda ends: ends[1]))
_FORMULA = Codec({"type": "string"}, str, lambda name, text: parse(checked(str, name, text)))
_TEXT = (Column("formula", str, "object", None), Column("length", lambda formula: formula.length, "int64", 0))
_TEXTS = (Column("alternatives", lambda found: tuple(str(one.formula) for one in found), "object", ()),)
_CHANCE = (
    Column("null_mean", lambda chance: chance.mean),
    Column("null_maximum", lambda chance: chance.maximum),
    Column("z", lambda chance: chance.z),
    Column("p", lambda chance: chance.p),
)
_HELD_OUT = (
    Column("held_out_iou", lambda there: there.iou),
    Column("held_out_score", lambda there: there.score),
    Column("held_out_p", lambda there: None if there.chance is None else there.chance.p),
)


@documented
@dataclass(frozen=True, slots=True)
class Candidate(Record):
    """A formula that came close to the best one."""

    formula: Annotated[Formula, Field(codec=_FORMULA)]
    """In canonical form."""
    iou: Annotated[float, Field(least=0, most=1)]
    """``intersection / union``."""
    intersection: Annotated[int, Field(least=0)]
    """|F ∧ B| in cells."""
    union: Annotated[int, Field(least=0)]
    """|F ∨ B| in cells."""


@documented
@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Record):
    """The formula that describes best where one unit's activation lies in one range.

    Below, F is the set of cells where the formula is true, and B the bitmap: the cells whose activation lies in the
    range.
    """

    unit: Annotated[int, Field(least=0)]
    """Index of the unit; of the bitmap, when bitmaps were given."""
    range_index: Annotated[int, Field(least=1)]
    """Number of the range among the unit's ranges, from 1, ascending; 1 for bitmaps."""
    range: Annotated[tuple[float, float] | None, Field(codec=_RANGE, columns=_ENDS)]
    """The open interval of activation (lower, upper), which may end at infinity; None when there is none, as for
    bitmaps."""
    formula: Annotated[Formula | None, Field(codec=_FORMULA, columns=_TEXT)]
    """In canonical form; None unless `status` is ``explained``."""
    iou: Annotated[float, Field(least=0, most=1)]
    """``intersection / union``; 0.0 without a formula."""
    iou_gain: float | None
    """`iou` minus the bitmap's share of all cells, which is the IoU of a formula that is always true: so ranges of
    different size compare. None without a formula, and where an older ccx stored the result."""
    score: float
    """What the search maximised: the score that ``settings["scoring"]`` names (``docs/scores.md``), times ``penalty **
    (length - 1)``; `iou` by default."""
    intersection: Annotated[int, Field(least=0)]
    """|F ∧ B| in cells."""
    union: Annotated[int, Field(least=0)]
    """|F ∨ B| in cells."""
    bitmap_cells: Annotated[int, Field(least=0)]
    """|B| in cells."""
    formula_cells: Annotated[int, Field(least=0)]
    """|F| in cells."""
    status: Status
    """Why there is a formula or none."""
    visited: Annotated[int, Field(least=0)]
    """Number of formulas that the search evaluated exactly."""
    expanded: Annotated[int, Field(least=0)] = 0
    """Number of formulas that it extended, by all concepts and operators."""
    estimated: Annotated[int, Field(least=0)] = 0
    """Number of formulas that it gave an estimate first; 0 for searches without estimates."""
    optimal: bool
    """True where no formula that was asked for (length, names, least IoU) precedes it (``docs/search.md``), and that is
    proven; without a formula, that there is none."""
    upper_bound: float | None = None
    """Proven bound of the score of any formula that was asked for; None where nothing is proven."""
    evaluations: Annotated[int, Field(least=0)] = 0
    """Number of formulas that a proof bounded or counted; 0 without proof."""
    alternatives: Annotated[tuple[Candidate, ...], Field(columns=_TEXTS)] = ()
    """The next best formulas, best first, when more than one was asked for."""
    chance: Annotated[Chance | None, Field(columns=_CHANCE)] = None
    """The score beside those that the search reaches on permuted bitmaps (``docs/chance.md``); None where that was not
    asked for, or there is no formula."""
    held_out: Annotated[HeldOut | None, Field(columns=_HELD_OUT)] = None
    """The formula on samples that it was not found on; None where no samples were held out, or there is no formula. All
    other fields are of the samples that it was found on."""

    @property
    def cluster(self) -> int:
        """Deprecated: ``range_index - 1``."""
        warnings.warn("cluster is called range_index now, and counts from 1", DeprecationWarning, stacklevel=2)
        return self.range_index - 1

    @property
    def gap(self) -> float | None:
        """How far the score may be from the best: 0.0 where it is proven optimal, None where nothing is proven."""
        return None if self.upper_bound is None else self.upper_bound - self.score

    def check(self) -> None:
        """Raise `InputError` where fields contradict each other: counts, IoU, status and what hangs on them."""
        for field, wanted, got in _contradictions(self):
            raise bad_field(field, wanted, got)


def _contradictions(item: Explanation) -> Iterator[tuple[str, str, object]]:
    """Yield (field, what it should be, what it is) of each that the other fields exclude."""
    yield from out_of_bounds(item)
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
