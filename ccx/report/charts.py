"""What the charts show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ccx.formula import Concept, Formula, Not
from ccx.report.painting import Painter, shown_name
from ccx.results import Explanation, Explanations

_N_CHARTED = 40  # concepts in the chart
_N_BINS = 60  # of activations


@dataclass(frozen=True, slots=True)
class Bar:
    """A concept of the chart: in how many formulas it stands, plain and after NOT."""

    name: str
    color: int
    category: str
    plain: int
    negated: int


@dataclass(frozen=True, slots=True)
class CategoryBar:
    """A category: units whose best formula names a concept of it, not negated, and how many different concepts."""

    name: str
    color: int
    n_units: int
    n_concepts: int


@dataclass(frozen=True, slots=True)
class ActivationChart:
    """How often a unit takes which values: log-scaled bars of height 0..1, and where its ranges lie, 0..1 along."""

    bars: list[float]
    lower: float
    upper: float
    bands: list[tuple[float, float, int]]  # from, to, number of the range


def iou_histogram(ious: list[float]) -> list[tuple[str, int]]:
    """Return (lower end, count) of equal bins from 0 to the highest IoU."""
    width = next(width for width in (0.01, 0.02, 0.05, 1) if max(ious, default=0) <= 20 * width)
    counts = Counter(min(int(iou / width), 19) for iou in ious)
    return [(f"{i * width:.2f}", counts[i]) for i in range(max(counts, default=-1) + 1)]


def concept_bars(found: Explanations, painter: Painter) -> tuple[list[Bar], int]:
    """Return the concepts that stand in most formulas, grouped by category, and how many are left out."""
    plain: Counter[str] = Counter()
    negated: Counter[str] = Counter()
    for item in found:
        names = literals(item.formula)
        plain.update(name for name, is_negated in names if not is_negated)
        negated.update(name for name, is_negated in names if is_negated)
    ranked = sorted(plain | negated, key=lambda name: (-plain[name] - negated[name], name))
    order = {category: i for i, category in enumerate(painter.color_of)}
    kept = sorted(ranked[:_N_CHARTED], key=lambda name: order.get(painter.category_of.get(name, ""), 0))
    bars = []
    for name in kept:
        piece = painter.name(name)
        bars.append(Bar(piece.text, piece.color, piece.category, plain[name], negated[name]))
    return bars, max(0, len(ranked) - _N_CHARTED)


def category_bars(best: Iterable[Explanation], painter: Painter) -> list[CategoryBar]:
    """Count units by category, given the best explanation of each.

    Network Dissection's chart (Bau et al. 2017), for formulas: a unit counts once for each category of which its
    formula names a concept that is not negated.
    """
    n_units: Counter[str] = Counter()
    names: dict[str, set[str]] = {kind: set() for kind in painter.color_of}
    for item in best:
        plain = {name for name, is_negated in literals(item.formula) if not is_negated}
        kinds = {name: painter.category_of[name] for name in plain if name in painter.category_of}
        n_units.update(set(kinds.values()))
        for name, kind in kinds.items():
            names[kind].add(name)
    return [
        CategoryBar(shown_name(kind), color, n_units[kind], len(names[kind]))
        for kind, color in painter.color_of.items()
    ]


def activation_chart(values: npt.NDArray[np.float32], items: Sequence[Explanation]) -> ActivationChart | None:
    """Chart a unit's activations float32[...], before upsampling; None where they are all equal, or there are none."""
    if not values.size:
        return None
    lower, upper = float(values.min()), float(values.max())
    if not lower < upper:
        return None
    scale = np.float32(_N_BINS / (upper - lower))
    places = ((values.ravel() - np.float32(lower)) * scale).astype(np.int64)
    counts = np.bincount(np.minimum(places, _N_BINS - 1), minlength=_N_BINS)
    heights = np.log1p(counts) / np.log1p(counts.max())

    def along(end: float) -> float:
        return float(np.clip((end - lower) / (upper - lower), 0, 1))

    bands = [(along(item.range[0]), along(item.range[1]), item.range_index) for item in items if item.range is not None]
    return ActivationChart(heights.tolist(), lower, upper, bands)


def literals(formula: Formula | None) -> set[tuple[str, bool]]:
    """Return the names in a formula, each with whether it is negated."""
    names: set[tuple[str, bool]] = set()
    stack: list[tuple[Formula, bool]] = [] if formula is None else [(formula, False)]
    while stack:
        node, is_negated = stack.pop()
        if isinstance(node, Concept):
            names.add((node.name, is_negated))
        stack += [(child, is_negated ^ isinstance(node, Not)) for child in node.children]
    return names
