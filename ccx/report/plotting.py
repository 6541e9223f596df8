"""`plot`: explanations as a Matplotlib figure, for notebooks, papers and PNG files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ccx.concepts import Concepts
from ccx.errors import InputError, require_library
from ccx.keys import shortened
from ccx.pipeline.judging import explained_samples
from ccx.report.charts import concept_bars
from ccx.report.drawing import loops, pixels_of
from ccx.report.html_report import check_concepts
from ccx.report.painting import Painter, shown_name
from ccx.report.pictures import FINE, Chosen, Pictures, samples_keys
from ccx.results import Explanation, Explanations

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FIRES, _HOLDS = "#ffd21f", "#35c6ff"  # solid and dashed: the two can be told apart without their colors
_N_BARS = 15
_NAME = 24  # letters of a sample's name above a picture
_WIDTH = 100  # characters of a formula before it breaks


def pyplot_for(purpose: str) -> Any:
    """Return Matplotlib's pyplot, or raise `MissingExtraError` that says what for."""
    require_library("matplotlib", "plot", purpose)
    from matplotlib import pyplot  # noqa: PLC0415 - an optional library

    return pyplot


def plot(
    found: Explanation | Explanations,
    concepts: Concepts,
    *,
    activations: Any = None,
    bitmaps: Any = None,
    images: Any = None,
    pictures: int = 5,
) -> Figure:
    """Draw an explanation, a unit, or an overview of many units.

    Parameters
    ----------
    found
        An `Explanation`: one row of pictures. `Explanations` of one unit: a row per range, highest range first. Of
        several units: how high IoU is, and which concepts are named most.
    concepts
        The concepts that `ccx.explain` was given.
    activations, bitmaps
        What was explained; the rows of pictures need one of them.
    images
        Photographs, as for `ccx.report.write_report`; None = pictures on gray.
    pictures
        Pictures per row: the samples on which bitmap (solid line, what lies outside is dark) and formula (dashed line)
        agree on most cells, and last the one on which they differ most.

    Returns
    -------
    matplotlib.figure.Figure
        Shown by a notebook; ``figure.savefig("unit.png")`` writes it.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    InputError
        (`ShapeError`, `DTypeError`) if the arguments do not belong to each other.

    """
    pyplot = pyplot_for("ccx.plot")

    if isinstance(found, Explanation):
        items = [found]
    elif isinstance(found, Explanations):
        check_concepts(found, concepts)
        items = list(found)
    else:
        remedy = "pass what ccx.explain returned, or an element of it"
        raise InputError("found", wanted="Explanation or Explanations", got=type(found).__name__, remedy=remedy)
    if not items:
        raise InputError("found", wanted="at least one explanation", got="none", remedy="explain some units first")
    if isinstance(found, Explanations) and len(found.units) > 1:
        figure: Figure = pyplot.figure(figsize=(11, 4.5), layout="constrained")
        _draw_overview(figure, found, concepts)
    else:
        if activations is None and bitmaps is None:
            remedy = "pass activations= (or bitmaps=) as they were explained"
            raise InputError("activations", wanted="what was explained", got="None", remedy=remedy)
        samples = explained_samples(found, concepts) if isinstance(found, Explanations) else None
        keys = samples_keys(concepts, activations, images)
        chooser = Pictures(concepts, activations, bitmaps, None, pictures, FINE, samples, keys)
        rows = [(item, chooser.choose(item)) for item in reversed(items)]
        figure = pyplot.figure(figsize=(2.2 * pictures, 2.7 * len(rows)), layout="constrained")
        parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
        for part, (item, chosen) in zip(parts, rows, strict=True):
            _draw_row(part, item, chosen, images, pictures)
    pyplot.close(figure)  # the caller's alone: no notebook shows it twice, and none is left behind
    return figure


def _draw_row(figure: Any, item: Explanation, chosen: list[Chosen], images: Any, n_pictures: int) -> None:
    where = "" if item.range is None else f", range {item.range_index} ({item.range[0]:.4g}, {item.range[1]:.4g})"
    what = str(item.status).replace("_", " ")
    if item.formula is not None:
        what = f"IoU {item.iou:.3f}  {shown_name(str(item.formula))}"
    title = figure.suptitle(f"unit {item.unit}{where}: {what}"[: 2 * _WIDTH], fontsize=9, x=0.01, ha="left", wrap=True)
    title.set_parse_math(False)  # a dollar sign in a name is a dollar sign
    axes = figure.subplots(1, n_pictures, squeeze=False)[0]
    for axis in axes:
        axis.set_axis_off()
    for axis, one in zip(axes, chosen, strict=False):
        _draw_picture(axis, one, None if images is None else pixels_of(images[one.sample], f"images[{one.sample}]"))


def _draw_picture(axis: Axes, one: Chosen, image: Any) -> None:
    from matplotlib.collections import PolyCollection  # noqa: PLC0415 - an optional library

    height, width = one.fires.shape
    extent = (0, width, height, 0)
    axis.imshow(np.full((1, 1, 3), 150, np.uint8) if image is None else image, extent=extent, aspect="auto")
    shade = np.zeros((height, width, 4))
    shade[..., 3] = np.where(one.fires, 0.0, 0.6)
    axis.imshow(shade, extent=extent, aspect="auto", interpolation="nearest")
    for cells, color, line in ((one.fires, _FIRES, "solid"), (one.holds, _HOLDS, "dashed")):
        edges = PolyCollection(
            loops(cells), closed=True, facecolors="none", edgecolors=color, linewidths=1.2, linestyles=line
        )
        axis.add_collection(edges, autolim=False)
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    name = shortened(one.name, _NAME)
    title = axis.set_title(f"{'≠ ' if one.disagrees else ''}{name}: {one.iou:.2f}", fontsize=8)
    title.set_parse_math(False)


def _draw_overview(figure: Figure, found: Explanations, concepts: Concepts) -> None:
    left, right = figure.subplots(1, 2)
    left.hist([item.iou for item in found.explained], bins=np.linspace(0, 1, 41).tolist(), color="#2457a6")
    left.set(
        xlabel="IoU", ylabel="ranges", title=f"{len(found.explained)} explained ranges of {len(found.units)} units"
    )
    bars, _ = concept_bars(found, Painter(concepts))
    bars = sorted(bars, key=lambda bar: (-bar.plain - bar.negated, bar.name))[:_N_BARS][::-1]
    places = np.arange(len(bars))
    right.barh(places, [bar.plain for bar in bars], color="#2457a6", label="plain")
    starts = [bar.plain for bar in bars]
    right.barh(places, [bar.negated for bar in bars], left=starts, color="#a9bfe3", label="after NOT")
    right.set_yticks(places, [bar.name for bar in bars], parse_math=False)
    right.set(xlabel="formulas that name it", title="most frequent concepts")
    if bars:
        right.legend()
