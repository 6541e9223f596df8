"""What the heuristics of the published searches save, beside the exact beam and the proven optimum."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ccx.clustering import unit_ranges
from ccx.concepts import Concepts
from ccx.formula import left_deep
from ccx.jobs import Progress, progress_reporter
from ccx.kernels import range_histogram, upsample_pack
from ccx.kernels.activations import as_maps
from ccx.keys import require_same_samples
from ccx.options import SearchName, SearchOptions
from ccx.report.plotting import pyplot_for
from ccx.search import SEARCHES as CLASSES
from ccx.search.guided import GuidedSearch
from ccx.studies.figures import COLORS, tidy
from ccx.studies.random_units import random_units
from ccx.studies.table import Table, mean_and_deviation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEARCHES: tuple[SearchName, ...] = ("mmesh", "cfh", "areas", "none", "beam", "optimal")
_MOST_BELOW = 0.9  # of a mean: how far down a deviation is drawn, where a log scale has no end
_WHOLE = 1000  # means from here on are written without digits behind the point
_COLUMNS = ("search", "unit", "range", "seconds", "visited", "estimated", "iou", "formula")


@dataclass(frozen=True, slots=True)
class HeuristicComparison:
    """What `compare_heuristics` found.

    Attributes
    ----------
    summary
        By search: mean and deviation of seconds, of visited and of estimated formulas, the mean IoU, and for how
        many ranges no search found a better formula.
    runs
        Every search of every range.

    """

    summary: Table
    runs: Table

    def plot(self) -> Figure:
        """Return mean and deviation of seconds and of visited formulas of each search, on log scales.

        Raises
        ------
        MissingExtraError
            If Matplotlib is not installed.

        """
        pyplot = pyplot_for("the figure of compare_heuristics")
        names = self.summary.column("search")
        n_ranges = max(self.summary.column("ranges"), default=0)
        figure: Figure = pyplot.figure(figsize=(9, 1.3 + 0.36 * len(names)), layout="constrained")
        figure.suptitle(f"mean and deviation over {n_ranges} range{'' if n_ranges == 1 else 's'}", fontsize=10)
        pairs = (("seconds", "seconds per range"), ("visited", "formulas evaluated per range"))
        for axis, (column, label) in zip(figure.subplots(1, 2, sharey=True), pairs, strict=True):
            numbers = zip(self.summary.column(f"{column} mean"), self.summary.column(f"{column} sd"), strict=True)
            for place, (mean, deviation) in enumerate(numbers):
                if mean:  # no search, or nothing visited: a log scale has no 0
                    ends = [[min(deviation, _MOST_BELOW * mean)], [deviation]]
                    color = COLORS[place % len(COLORS)]
                    axis.errorbar([mean], [place], xerr=ends, fmt="o", color=color, capsize=3)
                    axis.annotate(
                        f"{mean:.3g}" if mean < _WHOLE else f"{mean:,.0f}",
                        (mean, place), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=8,
                    )  # fmt: skip
            axis.set_yticks(range(len(names)), names)
            axis.set_ylim(len(names) - 0.5, -0.7)
            axis.set_xlabel(label)
            if any(self.summary.column(f"{column} mean")):
                axis.set_xscale("log")
                axis.xaxis.set_minor_formatter("")
            axis.margins(x=0.12)
            tidy(axis, lines_of="x")
        pyplot.close(figure)
        return figure


def compare_heuristics(  # noqa: PLR0913 - public keywords
    activations: Any,
    concepts: Concepts,
    *,
    searches: Sequence[SearchName] = SEARCHES,
    units: Iterable[int] | None = None,
    n_units: int = 100,
    clusters: int = 1,
    quantile: float = 0.005,
    length: int = 3,
    beam: int = 5,
    published: bool = False,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | bool | None = None,
) -> HeuristicComparison:
    """Time searches on the same bitmaps: of each of some random units, one random range; none that is empty.

    The published study of heuristics (La Rosa et al. 2023, table of visited states), with every search in one run. A
    search's time is its own, on one thread, given what all searches of a data set or bitmap share.

    Parameters
    ----------
    activations, concepts
        As for `ccx.explain`.
    searches
        Any of the searches of `ccx.explain`.
    units
        These units; None = `n_units` random ones (0 = all).
    clusters, quantile, length, beam
        As for `ccx.explain`; the published study has one range per unit.
    published
        Run mmesh, cfh, areas and none as the published code does, its rounding and its ties included.
    seed
        Of the choice of units and ranges.
    threads, progress
        As for `ccx.explain`; threads serve the preparation.

    Raises
    ------
    InputError
        If an argument does not fit.

    """
    options = SearchOptions(length, beam)
    finders = {}
    for search in searches:
        asked = replace(options, search=search)
        kind = CLASSES[asked.search]
        finders[search] = kind(replace(asked, published=published and kind is GuidedSearch))
    require_same_samples("activations", activations, concepts)
    maps = as_maps(activations, concepts.n_samples, concepts.shape)
    counted = None if published else concepts.valid_positions(maps.shape[2:])
    rng = np.random.default_rng(seed)
    chosen = random_units(units, maps.shape[1], n_units, rng)
    allowed = np.ones(concepts.n_concepts, np.bool_)
    concepts.prepare(threads=threads)
    for find in finders.values():
        find.prepare(concepts, allowed, threads or 1)
    rows: list[tuple[Any, ...]] = []
    best: dict[int, float] = {}
    with progress_reporter(progress, "comparing searches") as report:
        for done, unit in enumerate(chosen):
            values = np.ascontiguousarray(maps[:, unit], np.float32)
            heard = values if counted is None else values[counted]
            limits = unit_ranges(heard, clusters=clusters, quantile=quantile)
            limits = limits[limits[:, 0] < limits[:, 1]]
            if len(limits):
                k = int(rng.integers(len(limits)))
                ends = float(limits[k, 0]), float(limits[k, 1])
                ((counts,),) = range_histogram(values[:, None], limits[k][None, None], concepts.atoms)
                bitmap = partial(upsample_pack, values, concepts.shape, ends, threads=1)
            if len(limits) and counts.any():  # nothing is to be found where the unit does not fire
                if not rows:
                    _timed(concepts, finders, counts, bitmap)  # what is compiled or read at first use is nobody's time
                for search, seconds, *numbers, iou, formula in _timed(concepts, finders, counts, bitmap):
                    rows.append((search, unit, k + 1, seconds, *numbers, iou, formula))
                    best[unit] = max(best.get(unit, 0.0), iou)
            report(done + 1, len(chosen))
    return HeuristicComparison(_summary(searches, rows, best), Table("searches, by range", _COLUMNS, tuple(rows)))


def _timed(concepts: Concepts, finders: dict[Any, Any], counts: Any, bitmap: Any) -> list[tuple[Any, ...]]:
    """Run each search on a bitmap -> (search, seconds, visited, estimated, IoU, formula) of each."""
    rows = []
    for search, find in finders.items():
        started = time.perf_counter()
        result = find(counts, bitmap)
        seconds = time.perf_counter() - started
        top = result.found[0] if result.found else None
        formula = None if top is None else left_deep([concepts.names[c] for c in top.concepts], top.operators)
        iou = top.iou if top else 0.0
        rows.append((search, seconds, result.visited, result.estimated, iou, None if top is None else str(formula)))
    return rows


def _summary(searches: Sequence[str], rows: list[tuple[Any, ...]], best: dict[int, float]) -> Table:
    columns = ["search", "ranges"]
    columns += [f"{what} {number}" for what in ("seconds", "visited", "estimated") for number in ("mean", "sd")]
    summary = []
    for search in searches:
        own = [row for row in rows if row[0] == search]
        numbers = [number for place in (3, 4, 5) for number in mean_and_deviation(row[place] for row in own)]
        n_best = sum(row[6] == best[row[1]] for row in own)
        summary.append((search, len(own), *numbers, mean_and_deviation(row[6] for row in own)[0], n_best))
    return Table("searches", (*columns, "iou mean", "best"), tuple(summary))
