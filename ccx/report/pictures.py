"""Which samples are shown for an explanation, and what is drawn over them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.jobs import available_threads
from ccx.kernels import and_popcount, logical_and, popcount, unpack
from ccx.kernels.activations import as_maps
from ccx.keys import Keyed, Keys, require_same_samples, sample_name
from ccx.listing import data_keys
from ccx.pipeline import inputs
from ccx.report.drawing import Photo, drawable, outline, photo
from ccx.report.painting import shown_name
from ccx.results import Explanation

_ANYWHERE = (-np.inf, np.inf)
_N_CANDIDATES = 256  # samples compared cell by cell for an explanation: a layer on 22,000 samples in seconds


@dataclass(frozen=True, slots=True)
class Detail:
    """How finely pictures are drawn: cells of a grid and pixels of a photograph, a side at most."""

    cells: int
    pixels: int


FINE = Detail(cells=128, pixels=176)  # a thumbnail of 144 on a screen, with some to spare
COARSE = Detail(cells=64, pixels=144)  # for thousands of pictures


@dataclass(frozen=True, slots=True)
class Picture:
    """One sample: SVG paths of the bitmap and of the formula's mask on a height×width grid, and their IoU there."""

    sample: int
    name: str
    shape: tuple[int, int]
    bitmap: str
    formula: str
    iou: float
    disagrees: bool  # chosen because formula and bitmap differ most here


@dataclass(frozen=True, slots=True)
class Chosen:
    """One sample: bool[h, w], at most as many cells a side as are drawn, of the bitmap and of the formula's mask."""

    sample: int
    name: str
    fires: npt.NDArray[np.bool_]
    holds: npt.NDArray[np.bool_]
    iou: float
    disagrees: bool


def samples_keys(concepts: Concepts, activations: Any, images: Any, argument: str = "images") -> Keys | None:
    """Return the keys of the samples, of whichever of the three knows them; `argument` names the images in errors.

    Raises `InputError` if two of them know of different samples, or there is not one image per sample.
    """
    known = require_same_samples("activations", activations, concepts)
    keys = None if images is None else data_keys(images)
    if keys is not None and known is not None:
        whose = "the activations" if concepts.keys is None else "the concepts"
        require_same_samples(argument, Keyed([], keys), Keyed([], known), whose=whose, name=whose.removeprefix("the "))
    elif images is not None and len(images) != concepts.n_samples:
        wanted, remedy = f"{concepts.n_samples} images", "give one image per sample, in the same order"
        raise InputError(argument, wanted=wanted, got=str(len(images)), remedy=remedy)
    return known or keys


class Album:
    """The photographs that pictures need, each made small once, on threads while pictures are chosen."""

    def __init__(self, images: Any, detail: Detail, threads: int | None) -> None:
        self._images = images
        self._n_pixels = detail.pixels
        self._n_waiting = 4 * (threads or available_threads())
        self._pool = ThreadPoolExecutor(threads or available_threads(), thread_name_prefix="ccx-photo")
        self._waiting: deque[Future[Photo]] = deque()
        self._photos: dict[int, Future[Photo]] = {}

    def add(self, sample: int) -> None:
        """Take in the photograph of a sample."""
        if sample not in self._photos:
            # Fetched here, as `images` may be of any kind, also one that knows no threads.
            made = self._pool.submit(photo, self._images[sample], self._n_pixels, f"images[{sample}]")
            self._photos[sample] = made
            self._waiting.append(made)
            if len(self._waiting) > self._n_waiting:  # so that few full-size images wait in memory
                self._waiting.popleft().result()

    def photos(self) -> dict[int, Photo]:
        """Return the photographs by sample, ascending; raises as `photo`."""
        return {sample: self._photos[sample].result() for sample in sorted(self._photos)}

    def close(self) -> None:
        """Drop what has not begun."""
        self._pool.shutdown(cancel_futures=True)


class Pictures:
    """Chooses and draws the pictures of explanations.

    Of each explanation, the samples on which bitmap and formula share most cells, and last the one on which they
    differ most; without a formula, those with the largest bitmap. Of more than 256 samples, only the 256 are looked at
    that have most activations in the range (before upsampling), or most cells of a given bitmap.

    Of `activations` and `bitmaps`, one is what was explained, as `ccx.explain` or `ccx.explain_bitmaps` takes it.
    Photographs come from the `album`; without one, outlines are drawn alone. `samples` are those that were explained,
    ascending (None = all), and `keys` what all are called, as `samples_keys` returns it (None = by their numbers).
    """

    def __init__(
        self,
        concepts: Concepts,
        activations: Any,
        bitmaps: Any,
        album: Album | None,
        n_pictures: int,
        detail: Detail,
        samples: npt.NDArray[np.int64] | None = None,
        keys: Keys | None = None,
    ) -> None:
        self._concepts, self._album, self._n_pictures, self._n_drawn = concepts, album, n_pictures, detail.cells
        self._maps: npt.NDArray[Any] | None = None
        self._bitmaps = np.empty((0, 0, 0), np.uint64)
        if activations is not None:
            self._argument = "activations"
            self._maps = as_maps(activations, concepts.n_samples, concepts.shape)
            self._n_units = self._maps.shape[1]
            self._counted = concepts.valid_positions(self._maps.shape[2:])
        else:
            self._argument = "bitmaps"
            self._bitmaps = inputs.as_bitmaps(bitmaps, concepts, None)
            self._n_units = len(self._bitmaps)
        self._keys = keys
        self._samples = np.arange(concepts.n_samples) if samples is None else samples
        self._unit = -1  # whose activations `_values` are
        self._values = np.empty(0, np.float32)
        self._is_checked = False

    def activations_of(self, unit: int) -> npt.NDArray[np.float32] | None:
        """Return a unit's activations that count, float32[...], before upsampling; None where bitmaps were given."""
        if self._maps is None or unit >= self._n_units:
            return None
        values = self._values_of(self._maps, unit)[self._samples]
        return values if self._counted is None else values[self._counted[self._samples]]

    def _values_of(self, maps: npt.NDArray[Any], unit: int) -> npt.NDArray[np.float32]:
        if self._unit != unit:
            self._unit, self._values = unit, np.ascontiguousarray(maps[:, unit], np.float32)
        return self._values

    def of(self, item: Explanation) -> list[Picture]:
        """Return the pictures of an explanation, and take their photographs into the album; raises as `choose`."""
        chosen = self.choose(item)
        if self._album is not None:
            for one in chosen:
                self._album.add(one.sample)
        return [
            Picture(
                one.sample, one.name, one.fires.shape, outline(one.fires), outline(one.holds), one.iou, one.disagrees
            )
            for one in chosen
        ]

    def choose(self, item: Explanation) -> list[Chosen]:
        """Return the samples to show of an explanation, best first; none where its bitmap is empty.

        Raises `InputError` if the activations or bitmaps are not those that were explained: all samples of one
        explanation are compared, and of all where there are few samples.
        """
        if item.bitmap_cells == 0 or (self._maps is not None and item.range is None):
            return []
        if item.unit >= self._n_units:
            remedy = "give the same activations as to explain"
            raise InputError(self._argument, wanted=f"unit {item.unit}", got=f"{self._n_units} units", remedy=remedy)
        samples = self._candidates(item)
        if samples.size < self._samples.size and not self._is_checked:
            self._overlap(item, self._samples)
        self._is_checked = True
        bitmap, mask, cells, shared, union = self._overlap(item, samples)
        worst = -1
        chosen = _largest(cells if item.formula is None else shared, self._n_pictures)
        if item.formula is not None and self._n_pictures > 1:
            agree = chosen[: self._n_pictures - 1]
            differs = union - shared
            differs[agree] = 0
            if differs.any():
                worst = int(differs.argmax())
                chosen = np.append(agree, worst)
        return [
            Chosen(
                sample=int(samples[place]),
                name=shown_name(sample_name(self._keys, int(samples[place]))),
                fires=fires,
                holds=holds,
                iou=float(shared[place] / max(union[place], 1)),
                disagrees=int(place) == worst,
            )
            for place, fires, holds in zip(chosen, self._cells(bitmap[chosen]), self._cells(mask[chosen]), strict=True)
        ]

    def _candidates(self, item: Explanation) -> npt.NDArray[np.int64]:
        """Return the samples to look at, ascending."""
        if self._samples.size <= _N_CANDIDATES:
            return self._samples
        if self._maps is None:
            fires = popcount(self._bitmaps[item.unit][self._samples], threads=1)
        else:
            lower, upper = item.range or _ANYWHERE
            values = self._values_of(self._maps, item.unit)[self._samples]
            counted: Any = True if self._counted is None else self._counted[self._samples]
            inside = np.sum(counted & (values > lower) & (values < upper), axis=(1, 2), dtype=np.int64)
            # Between two activations on either side of the range, upsampling may fill it.
            least = values.min(axis=(1, 2), where=counted, initial=np.inf)
            most = values.max(axis=(1, 2), where=counted, initial=-np.inf)
            fires = 2 * inside + ((least < upper) & (most > lower))
        return self._samples[np.sort(_largest(fires, _N_CANDIDATES))]

    def _overlap(self, item: Explanation, samples: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], ...]:
        """Return rows of bitmap and mask, and cells by sample: of the bitmap, shared, and in either."""
        bitmap = self._bitmap(item, samples)
        mask = np.zeros_like(bitmap)
        if item.formula is not None:
            mask = self._concepts.mask(item.formula, packed=True, samples=samples, threads=1)
        cells = popcount(bitmap, threads=1)
        shared = and_popcount(bitmap, mask, threads=1)
        if samples.size == self._samples.size:
            self._check(item, "cells", item.bitmap_cells, cells)
            self._check(item, "cells shared with the formula", item.intersection, shared)  # samples out of order
        return bitmap, mask, cells, shared, cells + popcount(mask, threads=1) - shared

    def _check(self, item: Explanation, what: str, n_explained: int, counts: npt.NDArray[np.int64]) -> None:
        """Raise if a number of cells in an explanation is not what `counts`, one per sample, add up to."""
        if counts.sum() != n_explained:
            wanted = f"those that were explained, with {n_explained} {what} of unit {item.unit} in its range"
            remedy = f"give the same {self._argument} as to explain, samples in the same order"
            raise InputError(self._argument, wanted=wanted, got=f"{counts.sum()} cells", remedy=remedy)

    def _bitmap(self, item: Explanation, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Return an explanation's bitmap as packed rows uint64[n, n_words], without cells that are not valid."""
        if self._maps is not None:
            values = self._values_of(self._maps, item.unit)[samples]
            return self._concepts.bitmap(values, item.range or _ANYWHERE, samples, threads=1)
        bitmap: npt.NDArray[np.uint64] = self._bitmaps[item.unit][samples]
        valid = self._concepts.valid_rows(samples, threads=1)
        return bitmap if valid is None else logical_and(bitmap, valid, threads=1)

    def _cells(self, rows: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        height, width = self._concepts.shape
        return drawable(unpack(rows, height * width).reshape(-1, height, width), self._n_drawn)


def _largest(counts: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """Return the places of the `n` largest counts above 0, largest first, earlier ones first where equal."""
    order = np.argsort(-counts, kind="stable")[:n]
    return order[counts[order] > 0]
