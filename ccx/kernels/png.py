"""Label maps in picture files: from inflated PNG rows to concepts at the centres of cells."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.errors import ShapeError
from ccx.kernels.conversion import describe
from ccx.kernels.cpu import png as kernels

UNKNOWN = 65_535
"""An entry of look-up tables for an id that means nothing."""

MAX_FILTER = 4
"""The highest of PNG's filters."""


class Ids(NamedTuple):
    """The ids of h×w pixels, as they stand in a PNG.

    ``rows`` uint8[h, 1 + w * pixel_bytes]: in each row the number of its filter (0 to 4; PNG specification, section 9)
    and the filtered bytes. The id of a pixel is its byte number `low`, plus `weight` (0 or 256) times its byte number
    `high`.
    """

    rows: npt.NDArray[np.uint8]
    pixel_bytes: int
    low: int
    high: int
    weight: int

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w)."""
        return self.rows.shape[0], (self.rows.shape[1] - 1) // self.pixel_bytes

    def numbers(self) -> npt.NDArray[np.uint16]:
        """Return the ids as uint16[h, w]."""
        return look_up(self, None, np.arange(1 << 16, dtype=np.uint16))[0]


@lru_cache(maxsize=64)
def cell_indices(n_pixels: int, n_cells: int) -> npt.NDArray[np.intp]:
    """Return the pixel in which the centre of each cell lies, along one axis: intp[n_cells].

    Cell i of n reaches from i/n to (i + 1)/n of the axis. A centre on the border of two pixels belongs to the later.
    """
    indices: npt.NDArray[np.intp] = (2 * np.arange(n_cells) + 1) * n_pixels // (2 * n_cells)
    indices.flags.writeable = False
    return indices


def look_up(
    ids: Ids,
    shape: tuple[int, int] | None,
    table: npt.NDArray[np.uint16],
    out: npt.NDArray[np.uint16] | None = None,
) -> tuple[npt.NDArray[np.uint16], bool]:
    """Return the table's entries at the centre of each cell, uint16[H, W], and whether none is `UNKNOWN`.

    table uint16[65536]: an entry per id. `shape` None = the pixels themselves. `out` uint16[H, W] is filled if given.

    Raises
    ------
    ShapeError
        If rows or table are not of these dtypes and shapes.

    """
    if ids.rows.dtype != np.uint8 or ids.rows.ndim != 2 or (ids.rows.shape[1] - 1) % ids.pixel_bytes:
        wanted = f"uint8[h, 1 + w * {ids.pixel_bytes}]"
        raise ShapeError("ids", wanted=wanted, got=describe(ids.rows), remedy="give the inflated rows of a PNG")
    if table.dtype != np.uint16 or table.shape != (1 << 16,):
        raise ShapeError("table", wanted="uint16[65536]", got=describe(table), remedy="give an entry to every id")
    (n_rows, n_columns), (height, width) = ids.shape, shape or ids.shape
    if out is None:
        out = np.empty((height, width), np.uint16)
    at = cell_indices(n_rows, height), cell_indices(n_columns, width)
    is_known = kernels.look_up(ids.rows, ids.pixel_bytes, ids.low, ids.high, ids.weight, *at, table, out)
    return out, bool(is_known)
