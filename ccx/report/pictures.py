"""Which samples are shown for an explanation, and what is drawn over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.kernels import and_popcount, atom_rows, logical_and, popcount, unpack, upsample_pack
from ccx.kernels.activations import as_maps
from ccx.pipeline import inputs
from ccx.report.drawing import Photo, drawable, outline, photo
from ccx.results import Explanation

_PHOTO_PIXELS = 176  # a side at most: a thumbnail of 144 on a screen, with some to spare


@dataclass(frozen=True, slots=True)
class Picture:
    """One sample: SVG paths of the bitmap and of the formula's mask on a height×width grid, and their IoU there."""

    sample: int
    shape: tuple[int, int]
    bitmap: str
    formula: str
    iou: float
    disagrees: bool  # chosen because formula and bitmap differ most here


class Album:
    """The photographs that pictures need, each made small once; `photos` maps a sample to its photograph."""

    def __init__(self, images: Any, n_samples: int) -> None:
        if len(images) != n_samples:
            remedy = "give one image a sample, in the same order"
            raise InputError("images", wanted=f"{n_samples} images", got=str(len(images)), remedy=remedy)
        self._images = images
        self.photos: dict[int, Photo] = {}

    def add(self, sample: int) -> None:
        """Take in the photograph of a sample."""
        if sample not in self.photos:
            self.photos[sample] = photo(self._images[sample], _PHOTO_PIXELS, f"images[{sample}]")


class Pictures:
    """Chooses and draws the pictures of explanations.

    Of each explanation, the samples on which bitmap and formula share most cells, and last the one on which they
    differ most; without a formula, those with the largest bitmap.

    Parameters
    ----------
    concepts
        Of the explanations.
    activations, bitmaps
        What was explained: one of the two, as `ccx.explain` or `ccx.explain_bitmaps` takes it.
    album
        Where the photographs come from; None = outlines without photographs.
    n_pictures
        Pictures an explanation.
    threads
        Processors to use; None = all available.

    """

    def __init__(
        self,
        concepts: Concepts,
        activations: Any,
        bitmaps: Any,
        album: Album | None,
        n_pictures: int,
        threads: int | None,
    ) -> None:
        self._concepts, self._album, self._n_pictures, self._threads = concepts, album, n_pictures, threads
        self._maps = self._bitmaps = None
        if activations is not None:
            self._argument = "activations"
            self._maps = as_maps(activations, concepts.n_samples, concepts.shape)
            self._n_units = self._maps.shape[1]
        else:
            self._argument = "bitmaps"
            self._bitmaps = inputs.as_bitmaps(bitmaps, concepts, threads)
            self._n_units = len(self._bitmaps)
        # Cells that are not valid count nowhere, so they are not drawn.
        everywhere = np.ones(concepts.atoms.n_atoms, np.bool_)
        self._valid = atom_rows(concepts.atoms, everywhere, np.arange(concepts.n_samples), threads=threads)

    def of(self, item: Explanation) -> list[Picture]:
        """Return the pictures of an explanation; none where its bitmap is empty.

        Raises
        ------
        InputError
            If the activations or bitmaps are not those that were explained.

        """
        bitmap = self._bitmap(item)
        if bitmap is None:
            return []
        cells = popcount(bitmap, threads=self._threads)
        self._check(item, "cells", item.bitmap_cells, cells)
        mask = np.zeros_like(bitmap) if item.formula is None else self._concepts.mask(item.formula, packed=True)
        shared = and_popcount(bitmap, mask, threads=self._threads)
        self._check(item, "cells shared with the formula", item.intersection, shared)  # samples may be out of order
        union = cells + popcount(mask, threads=self._threads) - shared
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
            Picture(
                sample=int(sample),
                shape=fires.shape,
                bitmap=outline(fires),
                formula=outline(holds),
                iou=float(shared[sample] / max(union[sample], 1)),
                disagrees=int(sample) == worst,
            )
            for sample, fires, holds in zip(chosen, self._cells(bitmap, chosen), self._cells(mask, chosen), strict=True)
        ]

    def _check(self, item: Explanation, what: str, n_explained: int, counts: npt.NDArray[np.int64]) -> None:
        """Raise if a number of cells in an explanation is not what `counts`, one a sample, add up to."""
        if counts.sum() != n_explained:
            wanted = f"those that were explained, with {n_explained} {what} of unit {item.unit} in its range"
            remedy = f"give the same {self._argument} as to explain, samples in the same order"
            raise InputError(self._argument, wanted=wanted, got=f"{counts.sum()} cells", remedy=remedy)

    def _bitmap(self, item: Explanation) -> npt.NDArray[np.uint64] | None:
        """Return an explanation's bitmap as packed rows uint64[N, n_words], without cells that are not valid."""
        if item.bitmap_cells == 0:
            return None
        if item.unit >= self._n_units:
            remedy = "give the same activations as to explain"
            wanted = f"unit {item.unit}"
            raise InputError(self._argument, wanted=wanted, got=f"{self._n_units} units", remedy=remedy)
        if self._bitmaps is not None:
            bitmap = self._bitmaps[item.unit]
        elif self._maps is not None and item.range is not None:
            unit = np.ascontiguousarray(self._maps[:, item.unit], np.float32)
            bitmap = upsample_pack(unit, self._concepts.shape, item.range, threads=self._threads)
        else:
            return None
        found: npt.NDArray[np.uint64] = logical_and(bitmap, self._valid, threads=self._threads)
        return found

    def _cells(self, rows: npt.NDArray[np.uint64], samples: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        height, width = self._concepts.shape
        for sample in samples:
            if self._album is not None:
                self._album.add(int(sample))
        return drawable(unpack(rows[samples], height * width).reshape(-1, height, width))


def _largest(counts: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """Return the samples of the `n` largest counts above 0, largest first, earlier samples first where equal."""
    order = np.argsort(-counts, kind="stable")[:n]
    return order[counts[order] > 0]
