"""The view model: everything that the report shows, chosen and worded, ready for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ccx.concepts import Concepts
from ccx.evidence import Chance
from ccx.formula import Formula, equivalent
from ccx.pipeline.judging import explained_cells
from ccx.report.charts import (
    ActivationChart,
    Bar,
    CategoryBar,
    activation_chart,
    category_bars,
    concept_bars,
    iou_histogram,
)
from ccx.report.drawing import Photo
from ccx.report.painting import Painter, Piece, shown_name
from ccx.report.pictures import Album, Picture, Pictures
from ccx.results import Explanation, Explanations, Status

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
_SETTINGS = ("search", "scoring", "length", "beam", "candidates", "length_penalty", "min_iou", "top", "clusters")
_NEUTRAL = {"scoring": "iou", "length_penalty": 1.0, "min_iou": 0.0, "top": 1}  # what changes nothing is not listed


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


class Frame(NamedTuple):
    """What stands around the explanations: a title, notes; and whether each unit has a page of its own."""

    title: str
    notes: Iterable[str]
    is_folder: bool


class Heading(NamedTuple):
    """The anchor, the title and the name of a card."""

    anchor: str
    title: str
    name: str


@dataclass(frozen=True, slots=True)
class RangeView:
    """One explanation: the formula in pieces, how it overlaps with the bitmap (in percent), pictures."""

    item: Explanation
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
    """One unit: its ranges, highest first, and the best one."""

    anchor: str
    title: str
    name: str
    ranges: list[RangeView]
    best: RangeView
    activations: ActivationChart | None
    truth: list[Piece]
    verdict: bool
    words: str  # what the filter looks for

    @property
    def profile(self) -> list[float]:
        """IoU by range, lowest range first."""
        return [view.item.iou for view in reversed(self.ranges)]


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
    categories: list[CategoryBar]
    photos: Mapping[int, Photo]
    shape: tuple[int, int]
    version: str
    score_title: str
    is_folder: bool  # each unit has a page of its own, and photographs are files

    @property
    def highest(self) -> float:
        """The highest IoU, or 1 where nothing is explained: what profiles are scaled to."""
        return max((view.item.iou for card in self.cards for view in card.ranges), default=0.0) or 1.0

    @property
    def has_pictures(self) -> bool:
        """Whether there is a picture anywhere, so that the legend is needed."""
        return any(view.pictures for card in self.known + self.cards for view in card.ranges)

    @property
    def has_chance(self) -> bool:
        """Whether a score is compared with chance anywhere."""
        return any(view.item.chance is not None for card in self.known + self.cards for view in card.ranges)

    @property
    def has_held_out(self) -> bool:
        """Whether a formula is scored on samples held out anywhere."""
        return any(view.item.held_out is not None for card in self.known + self.cards for view in card.ranges)

    def neighbours(self) -> Iterator[tuple[Card | None, Card, Card | None]]:
        """Yield each card with the one before and the one after it."""
        return zip([None, *self.cards[:-1]], self.cards, [*self.cards[1:], None], strict=True)


def build(
    found: Explanations,
    concepts: Concepts,
    *,
    pictures: Pictures | None,
    known: Sequence[tuple[KnownUnit, Pictures | None]],
    album: Album | None,
    frame: Frame,
    unit_names: Sequence[str] | None,
    n_pictured: int,
) -> Report:
    """Build the view model; the album fills up while pictures are chosen."""
    painter = Painter(concepts)
    units: dict[int, list[Explanation]] = {}
    for item in found:
        units.setdefault(item.unit, []).append(item)
    n_cells = explained_cells(found, concepts)
    cards = [
        _card(
            units[best.unit],
            best,
            n_cells,
            painter,
            pictures if rank < n_pictured else None,
            Heading(
                f"unit-{best.unit}",
                f"unit {best.unit}",
                shown_name(unit_names[best.unit]) if unit_names is not None else "",
            ),
        )
        for rank, best in enumerate(found.best())
    ]
    checks = [
        _card(
            list(one.found),
            one.found.best()[0],
            explained_cells(one.found, concepts),
            painter,
            own,
            Heading(f"known-{i}", shown_name(one.title), ""),
            truth=one.formula,
        )
        for i, (one, own) in enumerate(known)
    ]
    bars, n_more = concept_bars(found, painter)
    return Report(
        title=frame.title,
        notes=list(frame.notes),
        facts=_facts(found, concepts, len(cards), n_pictured if pictures is not None else None),
        known=checks,
        cards=cards,
        histogram=iou_histogram([item.iou for item in found.explained]),
        bars=bars,
        n_more_bars=n_more,
        categories=category_bars((card.best.item for card in cards), painter),
        photos={} if album is None else album.photos(),
        shape=concepts.shape,
        version=found.version,
        score_title=found.score_title,
        is_folder=frame.is_folder,
    )


def _card(
    items: list[Explanation],
    chosen: Explanation,
    n_cells: int,
    painter: Painter,
    pictures: Pictures | None,
    heading: Heading,
    truth: Formula | None = None,
) -> Card:
    views = [_range(item, len(items), n_cells, painter, pictures) for item in reversed(items)]
    best = next(view for view in views if view.item is chosen)
    values = None if pictures is None else pictures.activations_of(items[0].unit)
    names = {piece.text for view in views for piece in view.pieces if piece.kind == "name"}
    return Card(
        anchor=heading.anchor,
        title=heading.title,
        name=heading.name,
        ranges=views,
        best=best,
        activations=None if values is None else activation_chart(values, items),
        truth=[] if truth is None else painter.pieces(truth),
        verdict=truth is not None and best.item.formula is not None and equivalent(truth, best.item.formula),
        words=" ".join([heading.title, heading.name, *sorted(names)]).lower(),
    )


def _range(item: Explanation, n_ranges: int, n_cells: int, painter: Painter, pictures: Pictures | None) -> RangeView:
    union = max(item.union, 1)
    place = {1: "lowest", n_ranges: "highest"}.get(item.range_index, "")
    if item.range is None:
        title = "all cells of the bitmap" if item.bitmap_cells else ""
    elif n_ranges == 1:
        title = "range"
    else:
        title = f"range {item.range_index} of {n_ranges}" + (f", {place}" if place else "")
    return RangeView(
        item=item,
        title=title,
        pieces=[] if item.formula is None else painter.pieces(item.formula),
        status=_STATUS_WORDS[item.status],
        fires=100 * item.bitmap_cells / max(n_cells, 1),
        holds=100 * item.formula_cells / max(n_cells, 1),
        only_bitmap=100 * (item.bitmap_cells - item.intersection) / union,
        both=100 * item.intersection / union,
        only_formula=100 * (item.formula_cells - item.intersection) / union,
        everywhere=item.formula_cells > _EVERYWHERE * n_cells,
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
    if settings.get("only") is not None:
        used.append(f"{len(settings['only'])} of the concepts")
    if settings.get("exclude"):
        used.append(f"{settings['exclude']:,} cells left out")
    facts.append(("settings", ", ".join(used)))
    if settings.get("permutations"):
        within = f" within {settings['groups']} groups" if settings.get("groups") else ""
        n, seed = settings["permutations"], settings["seed"]
        words = f"{n} permutations of the samples{within}, seed {seed}: no p is below {1 / (1 + n):.3g}"
        facts.append(("chance", words))
    if settings.get("fit_samples") is not None:
        n_fit, n_test = len(settings["fit_samples"]), len(settings["test_samples"])
        facts.append(("held out", f"found on {n_fit:,} samples, scored on {n_test:,} more"))
    facts.append(("made with", f"ccx {found.version}; concepts {found.concepts_hash[:12]}"))
    if n_pictured is not None and n_pictured < n_units:
        facts.append(("pictures", f"of the first {n_pictured} units below"))
    return facts


def null_bar(score: float, chance: Chance) -> tuple[float, float, float]:
    """Return where the mean and the maximum of permuted scores, and the score, lie on one scale, in percent."""
    ends = (chance.mean, chance.maximum, score)
    lowest, highest = min(0.0, *ends), max(0.0, *ends)
    mean, maximum, at = (100 * (value - lowest) / ((highest - lowest) or 1.0) for value in ends)
    return mean, maximum, at
