"""The view model: everything that the report shows, chosen and worded, ready for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccx.concepts import Concepts
from ccx.formula import And, Concept, Formula, Not, Or, equivalent, lexer
from ccx.report.drawing import Photo
from ccx.report.pictures import Picture, Pictures
from ccx.results import Explanation, Explanations, Status

_N_COLORS = 8  # of categories, in style.css; further categories begin again
_N_CHARTED = 40  # concepts in the chart
_EVERYWHERE = 0.9  # of all cells: a formula that holds there says little
_STATUS_WORDS = {
    Status.EXPLAINED: "",
    Status.SILENT: "silent: the unit never fires on these samples",
    Status.CONSTANT: "constant: all activations of the unit are equal",
    Status.SINGLE_VALUE: "a single value: nothing lies strictly inside this range",
    Status.EMPTY: "empty: no cell lies in this range",
    Status.NO_OVERLAP: "no overlap: no concept shares a cell with it",
    Status.BELOW_MIN_IOU: "not explained: the best IoU is below the minimum that was asked for",
}
_SETTINGS = ("search", "length", "beam", "candidates", "length_penalty", "min_iou", "top", "clusters")
_NEUTRAL = {"length_penalty": 1.0, "min_iou": 0.0, "top": 1}  # settings that change nothing are not listed


@dataclass(frozen=True, slots=True)
class KnownUnit:
    """A unit whose formula is known: a check that stands at the top of the report.

    Attributes
    ----------
    title
        What the unit is.
    formula
        What an explanation must find, up to logical identity.
    found
        What was found: `Explanations` of this one unit over the same concepts.
    activations
        What was explained, for the pictures; or None.

    """

    title: str
    formula: Formula
    found: Explanations
    activations: Any = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A name, a connective or a parenthesis of a formula; names have the color of their category."""

    kind: str
    text: str
    color: int = 0
    category: str = ""


@dataclass(frozen=True, slots=True)
class RangeView:
    """One explanation: the formula in pieces, how it overlaps with the bitmap (in percent), pictures."""

    item: Explanation
    gain: float
    title: str
    pieces: list[Piece]
    status: str
    fires: float
    holds: float
    only_bitmap: float
    both: float
    only_formula: float
    everywhere: bool
    pictures: list[Picture]
    alternatives: list[tuple[float, list[Piece]]]


@dataclass(frozen=True, slots=True)
class Card:
    """One unit: its ranges, highest first, and the one that `best_range` chose."""

    anchor: str
    title: str
    name: str
    ranges: list[RangeView]
    best: RangeView
    truth: list[Piece]
    verdict: bool
    words: str  # what the filter looks for

    @property
    def profile(self) -> list[float]:
        """IoU by range, lowest range first."""
        return [view.item.iou for view in reversed(self.ranges)]


@dataclass(frozen=True, slots=True)
class Bar:
    """A concept of the chart: in how many formulas it stands, plain and after NOT."""

    name: str
    color: int
    category: str
    plain: int
    negated: int


@dataclass(frozen=True, slots=True)
class Report:
    """All that the template needs."""

    title: str
    notes: list[str]
    facts: list[tuple[str, str]]
    known: list[Card]
    cards: list[Card]
    histogram: list[tuple[str, int]]
    bars: list[Bar]
    n_more_bars: int
    categories: list[tuple[str, int, int]]  # name, color, concepts that occur
    photos: Mapping[int, Photo]
    shape: tuple[int, int]
    version: str

    @property
    def highest(self) -> float:
        """The highest IoU, or 1 where nothing is explained: what profiles are scaled to."""
        return max((view.item.iou for card in self.cards for view in card.ranges), default=0.0) or 1.0

    @property
    def has_pictures(self) -> bool:
        """Whether there is a picture anywhere, so that the legend is needed."""
        return any(view.pictures for card in self.known + self.cards for view in card.ranges)


def gain(item: Explanation, n_cells: int) -> float:
    """Return the IoU beyond what is to be had for nothing: a formula that is always true has IoU |B| / `n_cells`.

    It is 0 without a formula. With it, ranges of very different size can be compared: a range that holds on half
    of all cells has IoU 0.5 with anything that is always true.
    """
    return 0.0 if item.formula is None else item.iou - item.bitmap_cells / n_cells


def best_range(items: Sequence[Explanation], n_cells: int) -> Explanation:
    """Return the explanation with the largest `gain`, of equal ones the higher range; with a formula if any has one."""
    return max(items, key=lambda item: (item.formula is not None, gain(item, n_cells), item.cluster))


class Painter:
    """Splits formulas into pieces, with the colors of the concepts' categories."""

    def __init__(self, concepts: Concepts) -> None:
        kinds = list(dict.fromkeys(concepts.categories or ()))
        self.color_of = {kind: i % _N_COLORS for i, kind in enumerate(kinds)}
        self.category_of = dict(zip(concepts.names, concepts.categories or (), strict=False))

    def name(self, name: str) -> Piece:
        """Return a concept's piece."""
        category = self.category_of.get(name, "")
        return Piece("name", shown_name(name), self.color_of.get(category, 0), shown_name(category))

    def pieces(self, formula: Formula) -> list[Piece]:
        """Return what stands in a formula, left to right; parentheses only where the connective changes."""
        pieces: list[Piece] = []
        stack: list[Formula | str] = [formula]
        while stack:
            match stack.pop():
                case str(text):
                    pieces.append(Piece("parenthesis" if text in "()" else "connective", text))
                case Concept(name):
                    pieces.append(self.name(name))
                case Not(operand):
                    inner: list[Formula | str] = (
                        [operand] if isinstance(operand, (Concept, Not)) else [")", operand, "("]
                    )
                    stack += [*inner, "NOT"]
                case (And() | Or()) as node:
                    right = _in_parentheses(node.right, type(node))
                    stack += [*right, "AND" if isinstance(node, And) else "OR", *_in_parentheses(node.left, type(node))]
        return pieces


def _in_parentheses(operand: Formula, around: type[Formula]) -> list[Formula | str]:
    """Return what to put on the stack for an operand; one of the same connective needs no parentheses."""
    return [operand] if isinstance(operand, (Concept, Not, around)) else [")", operand, "("]


def shown_name(name: str) -> str:
    """Return a name as people can read it: escaped where it holds what cannot be seen."""
    return name if not name or name.isprintable() else lexer.written(name)


def build(
    found: Explanations,
    concepts: Concepts,
    *,
    pictures: Pictures | None,
    known: Sequence[tuple[KnownUnit, Pictures | None]],
    photos: Mapping[int, Photo],
    title: str,
    notes: Iterable[str],
    unit_names: Sequence[str] | None,
    n_pictured: int,
) -> Report:
    """Build the view model; `photos` fills up while pictures are chosen."""
    painter = Painter(concepts)
    units: dict[int, list[Explanation]] = {}
    for item in found:
        units.setdefault(item.unit, []).append(item)
    best = {unit: gain(best_range(items, concepts.n_cells), concepts.n_cells) for unit, items in units.items()}
    ordered = [units[unit] for unit in sorted(units, key=lambda unit: (-best[unit], unit))]
    cards = [
        _card(
            items,
            concepts,
            painter,
            pictures if rank < n_pictured else None,
            anchor=f"unit-{items[0].unit}",
            title=f"unit {items[0].unit}",
            name=shown_name(unit_names[items[0].unit]) if unit_names is not None else "",
        )
        for rank, items in enumerate(ordered)
    ]
    checks = [
        _card(list(one.found), concepts, painter, own, f"known-{i}", shown_name(one.title), "", one.formula)
        for i, (one, own) in enumerate(known)
    ]
    bars, n_more = _bars(found, painter)
    return Report(
        title=title,
        notes=list(notes),
        facts=_facts(found, concepts, len(cards), n_pictured if pictures is not None else None),
        known=checks,
        cards=cards,
        histogram=_histogram([item.iou for item in found.explained]),
        bars=bars,
        n_more_bars=n_more,
        categories=_categories(found, painter),
        photos=photos,
        shape=concepts.shape,
        version=found.version,
    )


def _card(
    items: list[Explanation],
    concepts: Concepts,
    painter: Painter,
    pictures: Pictures | None,
    anchor: str,
    title: str,
    name: str,
    truth: Formula | None = None,
) -> Card:
    views = [_range(item, len(items), concepts, painter, pictures) for item in reversed(items)]
    chosen = best_range(items, concepts.n_cells)
    best = next(view for view in views if view.item is chosen)
    names = {piece.text for view in views for piece in view.pieces if piece.kind == "name"}
    return Card(
        anchor=anchor,
        title=title,
        name=name,
        ranges=views,
        best=best,
        truth=[] if truth is None else painter.pieces(truth),
        verdict=truth is not None and best.item.formula is not None and equivalent(truth, best.item.formula),
        words=" ".join([title, name, *sorted(names)]).lower(),
    )


def _range(
    item: Explanation, n_ranges: int, concepts: Concepts, painter: Painter, pictures: Pictures | None
) -> RangeView:
    union = max(item.union, 1)
    place = {1: "lowest", n_ranges: "highest"}.get(item.cluster + 1, "")
    if item.range is None:
        title = "all cells of the bitmap" if item.bitmap_cells else ""
    elif n_ranges == 1:
        title = "range"
    else:
        title = f"range {item.cluster + 1} of {n_ranges}" + (f", {place}" if place else "")
    return RangeView(
        item=item,
        gain=gain(item, concepts.n_cells),
        title=title,
        pieces=[] if item.formula is None else painter.pieces(item.formula),
        status=_STATUS_WORDS[item.status],
        fires=100 * item.bitmap_cells / max(concepts.n_cells, 1),
        holds=100 * item.formula_cells / max(concepts.n_cells, 1),
        only_bitmap=100 * (item.bitmap_cells - item.intersection) / union,
        both=100 * item.intersection / union,
        only_formula=100 * (item.formula_cells - item.intersection) / union,
        everywhere=item.formula_cells > _EVERYWHERE * concepts.n_cells,
        pictures=[] if pictures is None else pictures.of(item),
        alternatives=[(other.iou, painter.pieces(other.formula)) for other in item.alternatives],
    )


def _facts(found: Explanations, concepts: Concepts, n_units: int, n_pictured: int | None) -> list[tuple[str, str]]:
    """Return what was explained and how, as label and value."""
    numbers, settings = found.summary(), found.settings
    height, width = concepts.shape
    kinds = Counter(concepts.categories or ())
    listed = ", ".join(f"{shown_name(kind)} {count}" for kind, count in kinds.items())
    n_explained = numbers["statuses"].get(Status.EXPLAINED, 0)
    others = ", ".join(
        f"{n} {status.replace('_', ' ')}" for status, n in numbers["statuses"].items() if status != "explained"
    )
    facts = [
        ("samples", f"{concepts.n_samples:,} of {height}×{width} cells, {concepts.n_cells:,} valid"),
        ("concepts", f"{concepts.n_concepts:,}" + (f" ({listed})" if listed else "")),
        ("units", f"{n_units:,}"),
        ("explained", f"{n_explained:,} of {len(found):,} ranges" + (f" ({others})" if others else "")),
    ]
    if numbers["mean_iou"] is not None:
        mean, median, highest = (numbers[key] for key in ("mean_iou", "median_iou", "max_iou"))
        facts.append(("IoU", f"mean {mean:.3f}, median {median:.3f}, highest {highest:.3f}"))
    used = [
        f"{key.replace('_', ' ')} {settings[key]}"
        for key in _SETTINGS
        if settings.get(key) is not None and settings[key] != _NEUTRAL.get(key)
    ]
    if settings.get("ranges") is not None:
        used[-1] = "given ranges"
    elif "clusters" in settings:
        used.append(f"quantile {settings['quantile']}" if settings["clusters"] == 1 else settings["clustering"])
    if settings.get("names") is not None:
        used.append(f"{len(settings['names'])} of the concepts")
    facts.append(("settings", ", ".join(used)))
    facts.append(("made with", f"ccx {found.version}; concepts {found.concepts_hash[:12]}"))
    if n_pictured is not None and n_pictured < n_units:
        facts.append(("pictures", f"of the first {n_pictured} units below"))
    return facts


def _histogram(ious: list[float]) -> list[tuple[str, int]]:
    """Return (lower end, count) of equal bins from 0 to the highest IoU."""
    width = next(width for width in (0.01, 0.02, 0.05, 1) if max(ious, default=0) <= 20 * width)
    counts = Counter(min(int(iou / width), 19) for iou in ious)
    return [(f"{i * width:.2f}", counts[i]) for i in range(max(counts, default=-1) + 1)]


def _bars(found: Explanations, painter: Painter) -> tuple[list[Bar], int]:
    """Return the concepts that stand in most formulas, grouped by category, and how many are left out."""
    plain, negated = _occurrences(found)
    ranked = sorted(plain | negated, key=lambda name: (-plain[name] - negated[name], name))
    order = {category: i for i, category in enumerate(painter.color_of)}
    kept = sorted(ranked[:_N_CHARTED], key=lambda name: order.get(painter.category_of.get(name, ""), 0))
    bars = []
    for name in kept:
        piece = painter.name(name)
        bars.append(Bar(piece.text, piece.color, piece.category, plain[name], negated[name]))
    return bars, max(0, len(ranked) - _N_CHARTED)


def _categories(found: Explanations, painter: Painter) -> list[tuple[str, int, int]]:
    plain, negated = _occurrences(found)
    n_names = Counter(painter.category_of[name] for name in plain | negated if name in painter.category_of)
    return [(shown_name(kind), color, n_names[kind]) for kind, color in painter.color_of.items()]


def _occurrences(found: Explanations) -> tuple[Counter[str], Counter[str]]:
    """Count in how many formulas each concept stands plain, and after NOT."""
    plain: Counter[str] = Counter()
    negated: Counter[str] = Counter()
    for item in found:
        if item.formula is None:
            continue
        stack: list[tuple[Formula, bool]] = [(item.formula, False)]
        names: set[tuple[str, bool]] = set()
        while stack:
            node, is_negated = stack.pop()
            if isinstance(node, Concept):
                names.add((node.name, is_negated))
            stack += [(child, is_negated ^ isinstance(node, Not)) for child in node.children]
        plain.update(name for name, is_negated in names if not is_negated)
        negated.update(name for name, is_negated in names if is_negated)
    return plain, negated
