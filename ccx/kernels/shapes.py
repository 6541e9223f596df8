"""Boxes and rectangles of packed masks.

A mask of H×W cells is one packed row of ``H * W`` bits, cell (r, c) at bit ``r * W + c``, so the rows of an
image straddle words (see `ccx.kernels.rows`). Boxes and rectangles are half-open, ``(row0, col0, row1,
col1)`` as in scikit-image; that of an empty mask is all zeros.
"""

from __future__ import annotations

import operator
from typing import Any

from ccx.checks import shown
from ccx.errors import ShapeError
from ccx.jobs import check_threads
from ccx.kernels.backend import backend_for
from ccx.kernels.rows import as_rows, check_padding

__all__ = ["bounding_boxes", "inscribed_rectangles"]


def bounding_boxes(rows: Any, shape: tuple[int, int], *, threads: int | None = None) -> Any:
    """Find the smallest box around the ones of each mask.

    Parameters
    ----------
    rows
        ``uint64[..., n_words]``, packed masks.
    shape
        (H, W) of a mask.
    threads
        Number of threads (None: every available processor).

    Returns
    -------
    int32[..., 4]
        Half-open (row0, col0, row1, col1); all zeros for an empty mask.

    Raises
    ------
    DTypeError
        If `rows` is not uint64.
    ShapeError
        If `shape` is no pair of integers >= 0, or masks of that shape do not take `n_words` words.
    InputError
        If a bit behind the last cell is one.

    """
    rows, grid = _masks(rows, shape)
    return backend_for(rows).shapes.bounding_boxes(rows, grid, check_threads(threads))


def inscribed_rectangles(rows: Any, shape: tuple[int, int], *, threads: int | None = None) -> Any:
    """Find the largest all-ones rectangle of each mask.

    Several rectangles may be the largest. Let every cell propose the rectangle that is as high as the column
    of ones that ends in the cell, and as wide as that height allows to the left and to the right. The result
    is the first largest proposal, cells taken row by row, in each row from the left. That is the choice of
    the published Clustered Compositional Explanations code, whose MMESH heuristic uses these rectangles.

    Parameters
    ----------
    rows
        ``uint64[..., n_words]``, packed masks.
    shape
        (H, W) of a mask.
    threads
        Number of threads (None: every available processor).

    Returns
    -------
    int32[..., 4]
        Half-open (row0, col0, row1, col1); all zeros for an empty mask.

    Raises
    ------
    DTypeError
        If `rows` is not uint64.
    ShapeError
        If `shape` is no pair of integers >= 0, or masks of that shape do not take `n_words` words.
    InputError
        If a bit behind the last cell is one.

    """
    rows, grid = _masks(rows, shape)
    return backend_for(rows).shapes.inscribed_rectangles(rows, grid, check_threads(threads))


def _masks(rows: Any, shape: tuple[int, int]) -> tuple[Any, tuple[int, int]]:
    """Return the checked masks and their (H, W); a one behind the last cell would lead a kernel out of the grid."""
    height, width = check_grid(shape)
    rows = as_rows(rows, "rows", height * width)
    check_padding("rows", rows, height * width)
    return rows, (height, width)


def check_grid(shape: Any, least: int = 0) -> tuple[int, int]:
    """Return `shape` as (H, W), or raise `ShapeError`."""
    try:
        height, width = (operator.index(length) for length in shape)
    except (TypeError, ValueError):
        height = width = least - 1
    if min(height, width) < least:
        remedy = "pass the grid of the masks"
        raise ShapeError("shape", wanted=f"(H, W), two integers >= {least}", got=shown(shape), remedy=remedy)
    return height, width
