"""Label maps in picture files: undoing the filters of PNG, and ids to concepts."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.errors import ShapeError
from ccx.kernels._dispatch import describe
from ccx.kernels.cpu import pictures as kernels

UNKNOWN = 65_535
"""An entry of look-up tables for an id that means nothing."""


class Ids(NamedTuple):
    """The ids of h×w pixels, where a decoder left them.

    The id of the pixel in row y and column x is ``rows[y, low + step * x] + weight * rows[y, high + step * x]``.
    """

    rows: npt.NDArray[np.uint8]
    low: int
    high: int
    weight: int  # 0 or 256
    step: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w)."""
        return self.rows.shape[0], self.width

    def numbers(self) -> npt.NDArray[np.int64]:
        """Return the ids as int64[h, w]."""
        n = self.step * self.width
        low, high = (self.rows[:, at : at + n : self.step].astype(np.int64) for at in (self.low, self.high))
        return low[:, : self.width] + self.weight * high[:, : self.width]


@lru_cache(maxsize=64)
def cell_indices(n_pixels: int, n_cells: int) -> npt.NDArray[np.intp]:
    """Return the pixel in which the centre of each cell lies, along one axis: intp[n_cells].

    Cell i of n reaches from i/n to (i + 1)/n of the axis. A centre on the border of two pixels belongs to the later.
    """
    indices: npt.NDArray[np.intp] = (2 * np.arange(n_cells) + 1) * n_pixels // (2 * n_cells)
    indices.flags.writeable = False
    return indices


def unfilter(rows: npt.NDArray[np.uint8], pixel_bytes: int) -> bool:
    """Undo each row's filter in place: uint8[h, 1 + n], whose first column says which filter (PNG, section 9).

    Returns False where a filter is none of the five.

    Raises
    ------
    ShapeError
        If there are no rows of whole pixels.

    """
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] < 2 or pixel_bytes < 1:
        remedy = "give the inflated bytes, a row a line of pixels"
        raise ShapeError("rows", wanted="uint8[h, 1 + n]", got=describe(rows), remedy=remedy)
    return bool(kernels.unfilter(rows, pixel_bytes))


def look_up(
    ids: Ids, shape: tuple[int, int] | None, table: npt.NDArray[np.uint16]
) -> tuple[npt.NDArray[np.uint16], bool]:
    """Return the table's entries at the centre of each cell, uint16[H, W], and whether none is `UNKNOWN`.

    table uint16[65536]: an entry an id. None = the pixels themselves.
    """
    height, width = shape or ids.shape
    out = np.empty((height, width), np.uint16)
    at = cell_indices(ids.shape[0], height), cell_indices(ids.shape[1], width)
    is_known = kernels.look_up(ids.rows, ids.low, ids.high, ids.weight, ids.step, *at, table, out)
    return out, bool(is_known)
