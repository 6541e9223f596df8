"""What changes when a unit is taken to fire above another quantile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.kernels.activations import as_maps
from ccx.keys import require_same_samples
from ccx.pipeline import explain, inputs
from ccx.report.charts import literals
from ccx.report.plotting import pyplot_for
from ccx.results import Explanation, Explanations
from ccx.studies.figures import COLORS, tidy
from ccx.studies.table import Table, finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTILES = (0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99, 0.995)
_LEAST = 1e-6  # where the ranges of low activations begin
_LAST_ABOVE = 0.5  # quantiles above this one are of low activations
_N_COLUMNS = 4  # of the figure
_NO_CATEGORY = "concept"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What `compare_thresholds` found.

    Attributes
    ----------
    categories
        By quantile: the number of explanations, their mean IoU, and by category how many concepts of it stand in
        the formulas without NOT.
    units
        Every explanation, with its quantile and range.

    """

    categories: Table
    units: Table

    def plot(self) -> Figure:
        """Return a grid of bar charts, one a quantile.

        Raises
        ------
        MissingExtraError
            If Matplotlib is not installed.

        """
        pyplot = pyplot_for("the figure of compare_thresholds")
        kinds = self.categories.columns[3:]
        n_shown = len(self.categories)
        n_rows = -(-n_shown // _N_COLUMNS)
        size = 3 * _N_COLUMNS, 0.6 + 2.1 * n_rows
        figure: Figure = pyplot.figure(figsize=size, layout="constrained")
        figure.suptitle("concepts in formulas (without those after NOT), by category", fontsize=11)
        axes = figure.subplots(n_rows, _N_COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
        for axis in axes[n_shown:]:
            axis.set_axis_off()
        for place, (axis, (q, _, iou, *counts)) in enumerate(zip(axes, self.categories.rows, strict=False)):
            axis.bar(range(len(kinds)), counts, color=[COLORS[i % len(COLORS)] for i in range(len(kinds))])
            axis.set_xticks(range(len(kinds)), kinds, rotation=35, ha="right", rotation_mode="anchor", parse_math=False)
            if place + _N_COLUMNS >= n_shown:  # the lowest of its column
                axis.tick_params(axis="x", labelbottom=True)
            side = "above" if q <= _LAST_ABOVE else "below"
            mean = "nothing explained" if iou is None else f"mean IoU {iou:.3f}"
            axis.set_title(f"quantile {q:g}, {side}: {mean}", fontsize=9)
            axis.yaxis.get_major_locator().set_params(integer=True)
            tidy(axis, lines_of="y")
        pyplot.close(figure)
        return figure


def compare_thresholds(
    activations: Any,
    concepts: Concepts,
    *,
    quantiles: Sequence[float] = QUANTILES,
    units: Iterable[int] | None = None,
    **options: Any,
) -> Thresholds:
    """Explain units at several thresholds, and count which categories of concepts their formulas name.

    Of a unit's non-zero activations (before upsampling), the threshold of quantile q is exceeded by the share q. Up
    to q = 0.5 the range is (threshold, inf), above it (1e-6, threshold): the published study (La Rosa et al. 2023).
    A unit has no range where nothing lies between the ends.

    Parameters
    ----------
    activations, concepts, units
        As for `ccx.explain`.
    quantiles
        Numbers between 0 and 1.
    options
        More arguments of `ccx.explain`: length, beam, search, threads, progress and so on.

    Raises
    ------
    InputError
        If a quantile is not between 0 and 1; and what `ccx.explain` raises.

    """
    for q in quantiles:
        if not 0 < q < 1:
            raise InputError("quantiles", wanted="numbers between 0 and 1", got=repr(q), remedy="0.005 is usual")
    require_same_samples("activations", activations, concepts)
    if options.get("exclude") is not None:
        concepts = concepts.excluding(options["exclude"])
    maps = as_maps(activations, concepts.n_samples, concepts.shape)
    counted = None if options.get("published") else concepts.valid_positions(maps.shape[2:])
    chosen = inputs.check_units(units, maps.shape[1])
    heard = np.ones(maps[:, 0].shape, np.bool_) if counted is None else counted
    ranges = {unit: unit_ranges_of(maps[:, unit][heard], quantiles) for unit in chosen}
    firing = [unit for unit in chosen if not np.isnan(ranges[unit]).all()]
    found: dict[tuple[int, tuple[float, float]], Explanation] = {}
    if firing:
        filled = np.zeros((maps.shape[1], len(quantiles), 2))
        filled[:, :, 1] = 1
        for unit in firing:
            filled[unit] = _without_gaps(ranges[unit])
        explained: Explanations = explain(maps, concepts, ranges=filled, units=firing, **options)
        found = {(item.unit, item.range): item for item in explained if item.range is not None}
    rows = []
    for place, q in enumerate(quantiles):
        for unit in chosen:
            lower, upper = (float(end) for end in ranges[unit][place])
            item = found.get((unit, (lower, upper)))
            rows.append((q, item) if item is not None and item.formula is not None else (q, None))
    kinds = list(dict.fromkeys(concepts.categories or ())) or [_NO_CATEGORY]
    kind_of = dict(zip(concepts.names, concepts.categories or [_NO_CATEGORY] * len(concepts.names), strict=True))
    by_quantile = []
    for q in quantiles:
        items = [item for own, item in rows if own == q and item is not None]
        named = [kind_of[name] for item in items for name, is_negated in literals(item.formula) if not is_negated]
        mean = float(np.mean([item.iou for item in items])) if items else None
        by_quantile.append((q, len(items), mean, *(named.count(kind) for kind in kinds)))
    return Thresholds(
        Table(
            "concepts in formulas, by quantile", ("quantile", "explanations", "mean IoU", *kinds), tuple(by_quantile)
        ),
        Table(
            "explanations by quantile",
            ("quantile", "unit", "lower", "upper", "formula", "iou"),
            tuple(
                (q, item.unit, *map(finite, item.range or ()), str(item.formula), item.iou)
                for q, item in rows
                if item is not None
            ),
        ),
    )


def unit_ranges_of(values: npt.NDArray[Any], quantiles: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return the range of each quantile, float64[K, 2]; NaN where nothing can lie inside."""
    numbers = np.asarray(values, np.float32).ravel()
    numbers = numbers[numbers != 0].astype(np.float64)
    ranges = np.full((len(quantiles), 2), np.nan)
    if not numbers.size:
        return ranges
    for place, threshold in enumerate(np.quantile(numbers, [1 - q for q in quantiles])):
        ends = (threshold, np.inf) if quantiles[place] <= _LAST_ABOVE else (_LEAST, threshold)
        if ends[0] < ends[1]:
            ranges[place] = ends
    return ranges


def _without_gaps(ranges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return ranges in which another one of the unit stands for one that is missing: explain takes no gaps."""
    missing = np.isnan(ranges[:, 0])
    filled = ranges.copy()
    filled[missing] = ranges[~missing][0]
    return filled
