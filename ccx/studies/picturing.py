"""A figure per unit: photographs on which it fires and its formula holds, all else black."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.jobs import Progress, progress_reporter
from ccx.kernels import and_popcount, popcount, unpack
from ccx.kernels.activations import as_maps
from ccx.keys import sample_name, shortened
from ccx.report.drawing import pixels_of
from ccx.report.painting import shown_name
from ccx.report.pictures import samples_keys
from ccx.report.plotting import pyplot_for
from ccx.results import Explanation, Explanations
from ccx.store import PathLike, make_folder
from ccx.studies.figures import write_figure
from ccx.studies.random_units import random_units

_CHUNK = 512  # samples looked at in one go
_SIDE, _GAP, _LINE = 2.0, 0.08, 0.18  # inches: of a photograph, between two, of a line of text
_LINE_LETTERS = 14  # an inch
_NAME = 28  # letters of a sample's name above a photograph


def images(  # noqa: PLR0913 - public keywords
    found: Explanations,
    activations: Any,
    concepts: Concepts,
    photographs: Any,
    folder: PathLike,
    *,
    top_k: int = 5,
    units: Iterable[int] | None = None,
    n_units: int = 100,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> list[Path]:
    """Write ``unit_{unit}_c_{clusters}.png`` for each of some units, and return the paths.

    As the published system's script: for each range, lowest first, a row of `top_k` random samples on which the unit
    fires, the formula holds somewhere, and the sample's own IoU exceeds the explanation's; what is outside of the
    bitmap is black. Above each stand the sample and its IoU.

    Parameters
    ----------
    found, activations, concepts
        What `ccx.explain` returned, and what it was given.
    photographs
        One image per sample, as for `ccx.report.write_report`.
    folder
        Is made where it does not exist.
    top_k
        Photographs per range.
    units
        These units; None = `n_units` random ones of those explained (0 = all).
    seed
        Of the choice of units and samples.
    progress
        As for `ccx.explain`.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    InputError
        (`ShapeError`, `DTypeError`) if the arguments do not belong to each other.
    StoreError
        If a file cannot be read or written.

    """
    pyplot = pyplot_for("ccx.studies.images")
    if top_k < 1:
        raise InputError("top_k", wanted="an integer >= 1", got=repr(top_k), remedy="5 is usual")
    keys = samples_keys(concepts, activations, photographs, "photographs")
    maps = as_maps(activations, concepts.n_samples, concepts.shape)
    explained = list(found.units)
    rng = np.random.default_rng(seed)
    chosen = random_units(units, max(explained, default=-1) + 1, 0, rng) if units is not None else explained
    if units is None:
        chosen = [explained[place] for place in random_units(None, len(explained), n_units, rng)]
    make_folder(folder)
    paths = []
    with progress_reporter(progress, "drawing units") as report:
        for done, unit in enumerate(chosen):
            items = list(found.of_unit(unit))
            values = np.ascontiguousarray(maps[:, unit], np.float32)
            rows = [(_title(item, top_k), list(_samples(item, values, concepts, top_k, seed))) for item in items]
            width = top_k * (_SIDE + _GAP) + _GAP
            top = sum(_LINE * (len(title) + 2) + _SIDE for title, _ in rows)
            figure = pyplot.figure(figsize=(width, top))
            # All pictures in one plot, in inches: a plot for each takes ten times as long.
            axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, top), autoscale_on=False)
            axes.set_axis_off()
            for title, shown in rows:
                top -= _LINE / 2
                axes.text(_GAP, top, "\n".join(title), va="top", fontsize=9, parse_math=False)
                top -= _LINE * len(title)
                for column, (sample, iou, fires) in enumerate(shown):
                    left = _GAP + column * (_SIDE + _GAP)
                    label = f"{shown_name(shortened(sample_name(keys, sample), _NAME))}: {iou:.2f}"
                    axes.text(left, top - _LINE / 4, label, va="top", fontsize=7, color="#5c6570", parse_math=False)
                    image = _blackened(pixels_of(photographs[sample], f"photographs[{sample}]"), fires)
                    high, wide = (_SIDE * n / max(image.shape[:2]) for n in image.shape[:2])
                    below = top - _LINE
                    axes.imshow(image, extent=(left, left + wide, below - high, below), aspect="auto")
                top -= 1.5 * _LINE + _SIDE
            paths.append(Path(folder) / f"unit_{unit}_c_{found.settings.get('clusters', len(items))}.png")
            write_figure(figure, paths[-1])
            pyplot.close(figure)
            report(done + 1, len(chosen))
    return paths


def _title(item: Explanation, top_k: int) -> list[str]:
    """Return what stands above a row, in lines as wide as `top_k` photographs."""
    where = "" if item.range is None else f" ({item.range[0]:.4g}, {item.range[1]:.4g})".replace("inf", "∞")
    what = str(item.status).replace("_", " ") if item.formula is None else f"IoU {item.iou:.3f}"
    formula = "" if item.formula is None else f"   {shown_name(str(item.formula))}"
    text = f"unit {item.unit}, range {item.range_index}{where}   {what}{formula}"
    return textwrap.wrap(text, int(_LINE_LETTERS * (_SIDE + _GAP) * top_k))


def _samples(
    item: Explanation, values: npt.NDArray[np.float32], concepts: Concepts, top_k: int, seed: int
) -> Iterator[tuple[int, float, npt.NDArray[np.bool_]]]:
    """Yield (sample, IoU on it, where it fires bool[H, W]) of random samples that qualify, until there are enough."""
    if item.formula is None or item.range is None:
        return
    order = np.random.default_rng([seed, item.unit, item.range_index - 1]).permutation(concepts.n_samples)
    n_left = top_k
    for start in range(0, len(order), _CHUNK):
        samples = order[start : start + _CHUNK]
        bitmap = concepts.bitmap(values[samples], item.range, samples)
        mask = concepts.mask(item.formula, packed=True, samples=samples)
        shared = and_popcount(bitmap, mask)
        union = popcount(bitmap) + popcount(mask) - shared
        good = np.flatnonzero((shared > 0) & (shared > item.iou * union))[:n_left]
        fires = unpack(bitmap[good], concepts.shape[0] * concepts.shape[1]).reshape(-1, *concepts.shape)
        yield from zip(samples[good].tolist(), (shared[good] / union[good]).tolist(), fires, strict=True)
        n_left -= good.size
        if n_left == 0:
            return


def _blackened(image: npt.NDArray[np.uint8], fires: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return an image uint8[H, W, 3] that is black outside of a bitmap, whose cells are spread over it."""
    rows = np.arange(image.shape[0]) * fires.shape[0] // image.shape[0]
    columns = np.arange(image.shape[1]) * fires.shape[1] // image.shape[1]
    return image * fires[rows[:, None], columns, None]
